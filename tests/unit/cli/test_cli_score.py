"""`pellucid score` and `pellucid perplexity`, held against the library."""

from __future__ import annotations

import json

from pellucid import LLM


def test_score(invoke, tiny):
    args = ("score", "-m", tiny, "One day", " the", " a cat", "--pmi")
    told = json.loads(invoke(*args, "--json").stdout)
    with LLM(tiny) as llm:
        scores = llm.score("One day", [" the", " a cat"], unconditional="")
    assert [each["logprob"] for each in told["scores"]] == [each.logprob for each in scores]
    assert [each["pmi"] for each in told["scores"]] == [each.pmi for each in scores]
    lines = invoke(*args).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{each.logprob:.4f}" for each in scores]
    assert invoke("score", "-m", tiny, "One day", "").exit_code == 2


def test_perplexity(invoke, tiny, tmp_path):
    text = "It was a bright cold day in April.\n"
    (tmp_path / "text").write_text(text)
    told = json.loads(
        invoke("perplexity", tmp_path / "text", "-m", tiny, "--window", 9, "--stride", 4, "--json").stdout
    )
    with LLM(tiny) as llm:
        result = llm.perplexity(text, window=9, stride=4)
    assert told["logprob"] == result.logprob and told["bits_per_byte"] == result.bits_per_byte
    empty = tmp_path / "empty"
    empty.write_text("")
    assert invoke("perplexity", empty, "-m", tiny).exit_code == 2
