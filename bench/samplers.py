#!/usr/bin/env python3
"""What a choice costs: microseconds of each stage and of whole choices, at the vocabularies of SmolLM2 and Gemma.

    python bench/samplers.py                    every stage and some chains
    python bench/samplers.py --only top_p       stages and chains whose name holds this
    python bench/samplers.py --step 3.6 10      decode steps in milliseconds: choices also as a share of them

The logits are drawn, with a head as sharp as a language model's. The copy that a sampler makes of a row is told
apart ("copy"), and is in every choice that has a stage.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pellucid.sampling.params import SamplingParams
from pellucid.sampling.record import Past, explain_choice
from pellucid.sampling.sampler import Sampler, StepOf

SIZES = (49_152, 262_144)
TOKENS = 1024  # of the history

STAGES: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.8},
    "dynatemp": {"dynatemp_range": 0.3},
    "top_k": {"top_k": 40},
    "top_p": {"top_p": 0.95},
    "min_p": {"min_p": 0.05},
    "typical": {"typical_p": 0.9},
    "epsilon": {"epsilon_cutoff": 3e-4},
    "eta": {"eta_cutoff": 3e-4},
    "top_n_sigma": {"top_n_sigma": 1.5},
    "top_h": {"top_h": 0.5},
    "xtc": {"xtc_probability": 1.0},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
    "adaptive_p": {"adaptive_target": 0.3},
    "penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.1},
    "dry": {"dry_multiplier": 0.8, "dry_breakers": [[198], [25]]},
    "no_repeat_ngram": {"no_repeat_ngram_size": 3},
    "bad_words": {"bad_words_ids": [[i, i + 1] for i in range(20)]},
    "logit_bias": {"logit_bias": dict.fromkeys(range(100), 1.0)},
    "functions": {"logits_processors": [lambda ids, l: l]},
}
CHOICES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature 1": {"temperature": 1},
    "temperature 0.8": {"temperature": 0.8},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "top_k, top_p, min_p": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    "with repetition_penalty": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1},
    "llamacpp": {"order": "llamacpp", "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    "typical": {"temperature": 1, "typical_p": 0.9},
    "mirostat 2": {"temperature": 1, "mirostat": 2},
}


def microseconds(call: Callable[[], object], least_s: float = 0.15) -> float:
    """The median of single calls."""
    call()
    times: list[float] = []
    end = time.perf_counter() + least_s
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def row(size: int) -> np.ndarray:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(size) * 2.5
    x[rng.integers(0, size, 30)] += np.linspace(6, 12, 30)
    return x.astype(np.float32)


def past(size: int) -> Past:
    ids = np.random.default_rng(1).integers(0, size, TOKENS).astype(np.int32)
    return Past(ids, TOKENS // 2, 0, np.array([0, 2], np.int32))


def stage_cost(values: dict[str, Any], x: np.ndarray, history: Past) -> float:
    params = SamplingParams(**{"temperature": 1, **values})
    sampler = Sampler(params, 1)
    (stage,) = (s for name, s in sampler.stages.items() if name != "temperature" or "temperature" in values)
    step = StepOf(history, 1, sampler.states(history))
    work = x.copy()

    def call() -> None:
        np.copyto(work, x)
        stage(step, work)

    return microseconds(call)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--step", nargs=2, type=float, metavar="MS")
    args = parser.parse_args()
    rows, histories = [row(size) for size in SIZES], [past(size) for size in SIZES]
    work = [x.copy() for x in rows]
    copies = [microseconds(lambda w=w, x=x: np.copyto(w, x)) for w, x in zip(work, rows, strict=True)]
    print(f"{'stage, us':<26}" + "".join(f"{size:>10}" for size in SIZES))
    print(f"{'copy':<26}" + "".join(f"{c:>10.1f}" for c in copies))
    for name, values in STAGES.items():
        if args.only in name:
            costs = [stage_cost(values, x, h) for x, h in zip(rows, histories, strict=True)]
            print(
                f"{name:<26}" + "".join(f"{c - copy:>10.1f}" for c, copy in zip(costs, copies, strict=True))
            )
    print(f"\n{'choice, us':<26}" + "".join(f"{size:>10}" for size in SIZES))
    for name, values in CHOICES.items():
        if args.only in name:
            sampler = Sampler(SamplingParams(**values), 1)
            costs = [
                microseconds(lambda s=sampler, h=h, x=x: s.choose(h, x))
                for x, h in zip(rows, histories, strict=True)
            ]
            share = (
                [f"{c / 10 / ms:>9.1f}%" for c, ms in zip(costs, args.step, strict=True)] if args.step else []
            )
            print(f"{name:<26}" + "".join(f"{c:>10.1f}" for c in costs) + "".join(share))
    if args.only in "explain_choice":
        params = SamplingParams(**CHOICES["top_k, top_p, min_p"])
        costs = [
            microseconds(lambda x=x, h=h: explain_choice(x, h.token_ids, params, 1, num_prompt=h.num_prompt))
            for x, h in zip(rows, histories, strict=True)
        ]
        print(f"{'explain_choice':<26}" + "".join(f"{c:>10.1f}" for c in costs))


if __name__ == "__main__":
    main()
