"""What a constraint costs: time for each token, and time to the first mask beside llguidance alone.

    python bench/constrained.py MODEL [--tokens 64] [--runs 5]

Each figure is the median of the runs; the kinds take turns, so that all see the same machine. "One row a pass" is
without drafts: forced text makes constrained output quicker, which would hide what masks cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
from time import perf_counter

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "email": {"type": "string"},
        "city": {"type": "string"},
        "about": {"type": "string"},
    },
    "required": ["name", "age", "email", "city", "about"],
    "additionalProperties": False,
}


def decode_rate(llm, prompt, tokens, drafts, **given):
    """Tokens a second after the first one; the constrained run may end earlier by itself."""
    from pellucid.decoding.constrained import Constrained

    propose = Constrained.propose
    if not drafts:
        Constrained.propose = lambda self, history: []
    try:
        result = llm.generate(prompt, max_tokens=tokens, **given)
    finally:
        Constrained.propose = propose
    return result.timings.decode_tokens_per_second


def first_mask(llm, runs):
    """(ours, llguidance's own) milliseconds from a schema to its first mask, vocabulary built; each schema is new."""
    from llguidance import LLMatcher

    from pellucid.constraints.base import Source

    llm.compile_constraint(regex="a")  # builds the vocabulary
    compiler = llm._compiler
    ours, theirs = [], []
    for i in range(runs * 8):
        text = json.dumps({**SCHEMA, "title": str(i)})
        begin = perf_counter()
        compiler.compile(Source("json_schema", text)).state().mask()
        ours.append(perf_counter() - begin)
        mask = bytearray((llm._need().model.vocabulary_size + 31) // 32 * 4)
        begin = perf_counter()
        grammar = LLMatcher.grammar_from_json_schema(text)
        matcher = LLMatcher(compiler.vocabulary(), grammar, log_level=0)
        mask[:] = matcher.compute_bitmask()
        theirs.append(perf_counter() - begin)
    return statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3


def main() -> None:
    from pellucid import LLM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with LLM(options.model, prefix_caching=False) as llm:
        begin = perf_counter()
        llm.compile_constraint(json_schema=SCHEMA)
        print(
            f"vocabulary of {llm._need().model.vocabulary_size}: {(perf_counter() - begin) * 1e3:.0f} ms, once"
        )
        kinds = {
            "unconstrained": (True, {"ignore_eos": True}),
            "json, one row a pass": (False, {"json_schema": SCHEMA}),
            "json": (True, {"json_schema": SCHEMA}),
            "json, compact": (True, {"json_schema": SCHEMA, "json_whitespace": "compact"}),
        }
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(options.runs + 1):
            for name, (drafts, given) in kinds.items():
                rate = decode_rate(llm, "A person as JSON: ", options.tokens, drafts, **given)
                rates[name].append(1e3 / rate)
        plain = statistics.median(rates["unconstrained"][1:])
        for name, values in rates.items():
            each = statistics.median(values[1:])
            print(f"{name:<22} {each:6.3f} ms a token  {each / plain - 1:+6.1%}")
        ours, theirs = first_mask(llm, options.runs)
        print(f"time to first mask: {ours:.2f} ms; llguidance alone {theirs:.2f} ms ({ours / theirs:.2f}x)")


if __name__ == "__main__":
    main()
