"""What `pellucid generate` does before its first token, and what it leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import environment

NOT_NEEDED = (
    "rich",
    "huggingface_hub",
    "jinja2",
    "tokenizers",
    "secrets",
    "html",
    "asyncio",
    "difflib",  # (click imports it to make sense of "-m")
    "multiprocessing",
    "numpy.random",
    "shutil",
    "statistics",
    "pellucid.fetch.catalog",
    "pellucid.ops.reference",
    "pellucid.weights.safetensors",
)
RUN = """
import sys
from pathlib import Path
from pellucid.cli.main import main
try:
    main(["generate", "--model", sys.argv[1], "hello", "--max-tokens", "2", "--threads", "1"])
except SystemExit as end:
    assert not end.code
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
threads = [line.split()[1] for line in lines if line.startswith("Threads")]
print(*(name for name in sys.argv[2:] if name in sys.modules), file=sys.stderr)
print(*threads, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def after(tiny: Path) -> list[str]:
    """stderr after a run: the modules that were imported without need; the number of threads."""
    env = {name: value for name, value in environment().items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tiny), *NOT_NEEDED],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    return done.stderr.split("\n")


def test_nothing_is_imported_that_is_not_needed(after):
    assert after[0] == ""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
def test_one_thread_is_one_thread(after):
    """NumPy's BLAS would start one for each CPU, which spin for a while."""
    assert after[1] == "1"
