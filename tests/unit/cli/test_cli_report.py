"""`pellucid report`: a run file in, a page out."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_pages import Page


@pytest.fixture
def run_file(tiny: Path, invoke, tmp_path: Path) -> Path:
    file = tmp_path / "run.pellucid"
    done = invoke("generate", "-m", tiny, "Hello", "--max-tokens", "5", "--ignore-eos", "--record", file)
    assert done.exit_code == 0, done.stderr
    return file


def test_a_page_beside_the_run(run_file: Path, invoke) -> None:
    done = invoke("report", run_file)
    assert done.exit_code == 0, done.stderr
    page = run_file.with_suffix(".html")
    assert done.stdout == "" and f"{page}: {page.stat().st_size:,} bytes" in done.stderr
    parsed = Page(page.read_text(encoding="utf-8"))
    assert len(parsed.spans) == len(parsed.data["branches"][0]["tokens"]) > 5
    assert parsed.data["layers"][0] == "embed"


def test_where_it_goes_and_what_it_tells_is_for_the_caller_to_say(
    run_file: Path, invoke, tmp_path: Path
) -> None:
    invoke("report", run_file, "-o", tmp_path / "a.html", "--no-lens", "--top", 2, "--prompt-tokens", 1)
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert page.data["layers"] == []
    tokens = page.data["branches"][0]["tokens"]
    assert len(tokens[-1][6]) in (6, 9) and not tokens[-1][8]
    done = invoke("report", run_file, "-o", "-", "--no-lens", "--top", 2, "--prompt-tokens", 1)
    assert done.stdout == (tmp_path / "a.html").read_text(encoding="utf-8")


def test_the_run_file_is_not_overwritten(run_file: Path, invoke) -> None:
    before = run_file.read_bytes()
    done = invoke("report", run_file, "-o", run_file)
    assert done.exit_code == 2 and "is the run file" in done.stderr and run_file.read_bytes() == before
    page = run_file.rename(run_file.with_suffix(".html"))
    done = invoke("report", page)
    assert done.exit_code == 2 and "is the run file" in done.stderr and page.read_bytes() == before


def test_a_folder_that_is_not_there_is_told_by_its_name(run_file: Path, invoke, tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "a.html"
    done = invoke("report", run_file, "-o", target)
    assert done.exit_code == 1 and done.stderr == f"pellucid: error: {target}: its folder is not there\n"


@pytest.mark.parametrize("data", [None, b"", b"no run file", b"\0" * 100])
def test_files_that_are_no_run(data: bytes | None, invoke, tmp_path: Path) -> None:
    file = tmp_path / "run.pellucid"
    if data is not None:
        file.write_bytes(data)
    done = invoke("report", file)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and str(file) in done.stderr
    assert not file.with_suffix(".html").exists()


def test_another_model_is_named(run_file: Path, invoke, tmp_path: Path) -> None:
    from tiny_checkpoints import make

    done = invoke("report", run_file, "-m", make(tmp_path, "qwen3", "gguf", "F32"))
    assert done.exit_code == 2 and "another model" in done.stderr
