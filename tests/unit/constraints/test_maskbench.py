"""MaskBench: valid instances are accepted, invalid ones refused, for every schema that is compiled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny_tokenizers import write_tokenizer

from pellucid.constraints.base import Source
from pellucid.constraints.compiled import Compiler
from pellucid.errors import ConstraintError
from pellucid.text.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[3]
# How a refusal reads: everything that llguidance does not implement, or that is not sound.
REASONS = (
    *("cannot be followed", "Unknown format", "no keyword", "circular references"),
    *("Schema intersection stack", "min/maxProperties", "Unsatisfiable", "are not disjoint", "invalid regex"),
    *("takes more than", "too complex", "schema too large", "more than 2000 properties", "lookarounds"),
)


def cases(step):
    folder = Path(os.environ.get("PELLUCID_SHARED", ROOT.parent / "shared")) / "data/schema/maskbench"
    files = sorted(folder.glob("*.json"))[::step]
    if not files:
        pytest.skip(f"{folder} is absent: it holds the schemas of MaskBench")
    return [(file.name, json.loads(file.read_text())) for file in files]


def accepts(compiled, ids):
    state = compiled.state()
    if state.allows(ids) != len(ids):
        return False
    for token in ids:
        state.advance(token)
    return state.is_accepting


@pytest.mark.parametrize(
    "step", [pytest.param(12, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_valid_accepted_invalid_refused(step, tmp_path):
    write_tokenizer(tmp_path, 320)
    tokenizer = load_tokenizer(tmp_path)
    compiler = Compiler(tokenizer, tokenizer.vocabulary_size, tokenizer.eos_ids)
    wrong, unexplained, compiled_count, total, instances = [], [], 0, 0, 0
    for name, case in cases(step):
        total += 1
        try:
            compiled = compiler.compile(Source("json_schema", json.dumps(case["schema"])))
        except ConstraintError as error:
            if not any(reason in str(error) for reason in REASONS):
                unexplained.append((name, str(error)))
            continue
        compiled_count += 1
        for test in case.get("tests", []):
            ids = tokenizer.encode(json.dumps(test["data"], ensure_ascii=False), add_bos=False)
            instances += 1
            if accepts(compiled, ids) != test["valid"]:
                wrong.append((name, test["valid"]))
    assert not wrong
    assert not unexplained
    assert instances > total  # it was no empty run
    assert compiled_count >= 0.75 * total
