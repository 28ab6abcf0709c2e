"""`pellucid pull`, `models` and `rm`, as a person or a script runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fetch_servers import HubStandIn

from pellucid.cli import models, pull, rm
from pellucid.errors import DownloadError, ModelNotFoundError, UsageError
from pellucid.fetch.cache import Cache


def run(command, *arguments: str, **keywords) -> Result:
    old = version("click").startswith("8.1")  # there stderr has to be asked for
    runner = CliRunner(mix_stderr=False) if old else CliRunner()
    return runner.invoke(command.command, arguments, **keywords)


def test_pull_prints_the_path_and_nothing_else_on_stdout(tiny, on_hub: HubStandIn, content, cache: Cache):
    result = run(pull, "tiny")
    assert result.exit_code == 0
    path = Path(result.stdout.removesuffix("\n"))
    assert path.read_bytes() == content
    assert "fetching tiny from the Hub" in result.stderr
    assert "licence: Test licence 1.0" in result.stderr
    again = run(pull, "tiny")
    assert (again.stdout, again.stderr) == (result.stdout, "")


def test_pull_json(tiny, on_hub: HubStandIn, content):
    fields = json.loads(run(pull, "tiny", "--json").stdout)
    assert fields["name"] == "tiny"
    assert fields["size"] == len(content)
    assert fields["sha256"] == tiny.sha256
    assert fields["source"] == "hf:org/tiny-GGUF/tiny.gguf"
    assert fields["licence"] == "Test licence 1.0"
    assert Path(fields["path"]).is_file()


def test_pull_of_what_does_not_exist():
    assert isinstance(run(pull, "nothing").exception, ModelNotFoundError)


def test_models_lists_what_is_known_and_what_is_here(tiny, on_hub: HubStandIn, content, cache: Cache):
    before = run(models).stdout
    assert re.search(r"^tiny +300\.0 kB +Test licence 1\.0 +not fetched$", before, re.M)
    assert re.search(r"^gemma-3-270m +253\.1 MB +Gemma Terms of Use +not fetched$", before, re.M)
    assert f"0 B on this machine; models are kept in {cache.root}" in before
    path = run(pull, "tiny").stdout.strip()
    run(pull, "hf:org/tiny-GGUF")
    after = run(models).stdout
    assert re.search(rf"^tiny .* {re.escape(path)}$", after, re.M)
    assert re.search(r"^hf:org/tiny-GGUF +300\.0 kB +- +/", after, re.M)
    assert "600.0 kB on this machine" in after


def test_models_json(tiny, on_hub: HubStandIn, content, cache: Cache):
    run(pull, "tiny")
    fields = json.loads(run(models, "--json").stdout)
    assert fields["cache"] == str(cache.root)
    assert fields["disk_use"] == len(content)
    rows = {row["name"]: row for row in fields["models"]}
    assert rows["tiny"]["path"] == str(cache.entries()[0].path)
    assert rows["gemma-3-270m"]["path"] is None
    assert rows["smollm2-135m-instruct"]["licence"] == "Apache-2.0"


def test_models_verify_finds_what_the_file_time_hides(tiny, on_hub: HubStandIn, content):
    path = Path(run(pull, "tiny").stdout.strip())
    assert run(models, "--verify").exit_code == 0
    status = path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    result = run(models, "--verify", "--json")
    assert isinstance(result.exception, DownloadError)
    assert tiny.sha256 in str(result.exception)
    assert len(json.loads(result.stdout)["damaged"]) == 1


def test_rm_frees_what_it_says(tiny, on_hub: HubStandIn, cache: Cache):
    run(pull, "tiny")
    result = run(rm, "tiny", "--yes")
    freed = re.fullmatch(r"tiny: removed, (30\d\.\d) kB freed\n", result.stderr)
    assert freed, result.stderr
    assert cache.entries() == []
    assert not any(path.is_file() for path in (cache.root / "models").rglob("*"))
    assert isinstance(run(rm, "tiny", "--yes").exception, ModelNotFoundError)


def test_rm_asks_first(tiny, on_hub: HubStandIn, cache: Cache, monkeypatch):
    run(pull, "tiny")
    assert isinstance(run(rm, "tiny").exception, UsageError), "nobody can be asked"
    assert len(cache.entries()) == 1
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    assert run(rm, "tiny", input="n\n").exit_code == 1
    assert len(cache.entries()) == 1
    asked = run(rm, "tiny", input="y\n")
    assert asked.exit_code == 0
    assert "Remove tiny from" in asked.stderr
    assert "Remove" not in asked.stdout
    assert cache.entries() == []


def test_rm_never_touches_a_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    for name in ("mine.gguf", "./mine.gguf", str(tmp_path / "mine.gguf"), "..", "../.."):
        assert isinstance(run(rm, name, "--yes").exception, ModelNotFoundError)
    assert (tmp_path / "mine.gguf").exists()


def test_rm_from_the_hubs_cache(hub: HubStandIn, content, tmp_path: Path):
    hub.repos["org/tiny-GGUF"] = {"tiny.gguf": content}
    path = Path(run(pull, "hf:org/tiny-GGUF").stdout.strip())
    assert path.read_bytes() == content
    result = run(rm, "hf:org/tiny-GGUF", "--yes")
    assert result.stderr == "hf:org/tiny-GGUF: removed, 300.0 kB freed\n"
    assert not path.exists()


def test_rm_ends_a_broken_off_fetch(cache: Cache):
    left = cache.staging("tiny") / "wheels"
    left.mkdir()
    (left / "x.whl").write_bytes(bytes(5000))
    assert "5.0 kB of broken-off fetches" in run(models).stdout
    assert run(rm, "tiny", "--yes").stderr == "tiny: removed, 5.0 kB freed\n"
    assert cache.unfinished() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pull", "nothing"], 2, "no model 'nothing'"),
        (["pull", "pypi:x"], 2, "exact version"),
        (["rm", "nothing", "--yes"], 2, "is not in the cache"),
        (["models", "--json"], 0, ""),
    ],
)
def test_exit_codes_and_one_line(arguments: list[str], code: int, words: str):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = "from pellucid.cli.main import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == (1 if code else 0)


def test_the_bar_on_a_terminal(tiny, on_hub: HubStandIn, content, home: Path):
    """With stderr a terminal, rich draws there; stdout still has the path alone."""
    import pty

    script = (
        "import sys\n"
        "from fetch_support import TINY\n"
        "from pellucid.fetch.catalog import CATALOG\n"
        "from pellucid.cli.pull import command\n"
        "from pellucid.fetch import hub\n"
        "hub.FALLBACK_SECONDS = 300.0\n"
        "CATALOG['tiny'] = TINY\n"
        "command(['tiny'])\n"
    )
    main, side = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=side, text=True
    )
    os.close(side)
    shown = b""
    while True:  # meanwhile: what a slow machine draws may be more than a terminal holds
        try:
            shown += os.read(main, 65536)
        except OSError:  # the other side is closed
            break
    os.close(main)
    out, _ = process.communicate(timeout=300)
    assert Path(out.strip()).read_bytes() == content
    assert b"fetching tiny from the Hub" in shown
    assert b"\x1b[" in shown
    assert b"300.0/300.0 kB" in shown
