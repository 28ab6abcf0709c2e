"""Runs inside a peer's own environment (so: no import of ours): the same capture and lens as capture.py, one JSON line.

    python capture_peer.py KIND CHECKPOINT THREADS TOKENS LENS_TOKENS

KIND: transformers (generate with output_hidden_states), transformer_lens (an extra run_with_cache over what was
generated: it has no capture while it generates), nnsight (a trace over generate that saves every layer's output).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

PROMPT = 16


def ids_of(count: int, turn: int) -> Any:
    return torch.tensor(
        [[7 + (turn * 31 + i * 7 + j * 3) % 4000 for j in range(PROMPT)] for i in range(count)]
    )


def least(run: Any, rounds: int = 3) -> float:
    times = []
    for turn in range(rounds):
        start = time.perf_counter()
        run(turn)
        times.append(time.perf_counter() - start)
    return min(times)


def transformers_figures(checkpoint: str, tokens: int, lens_tokens: int) -> dict[str, float]:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    options: dict[str, Any] = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens}
    found: dict[str, float] = {}

    def generate(turn: int, count: int, capture: bool, **more: Any) -> Any:
        ids = ids_of(count, turn)
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), output_hidden_states=capture, return_dict_in_generate=True,
            pad_token_id=0, **(options | more),
        )  # fmt: skip

    for count in (1, 8):
        generate(9, count, True, min_new_tokens=4, max_new_tokens=4)
        plain = least(lambda turn, n=count: generate(turn, n, False), 2)
        captured = least(lambda turn, n=count: generate(turn, n, True), 2)
        found[f"plain_ms_{count}"], found[f"captured_ms_{count}"] = (
            1e3 * plain / tokens,
            1e3 * captured / tokens,
        )
    ids = generate(1, 1, False, min_new_tokens=lens_tokens, max_new_tokens=lens_tokens).sequences[:, :-1]

    def lens(_: int) -> None:
        states = model(ids, output_hidden_states=True).hidden_states
        norm = model.model.norm
        for layer, state in enumerate(states):
            rows = state[0, PROMPT - 1 :] if layer == len(states) - 1 else norm(state[0, PROMPT - 1 :])
            logprobs = torch.log_softmax(model.lm_head(rows), -1)
            logprobs.topk(5)
            target = ids[0, PROMPT - 1 :].unsqueeze(-1)
            (logprobs > logprobs.gather(-1, target)).sum(-1)

    found["lens_s"] = least(lens, 1)
    return found


def transformer_lens_figures(checkpoint: str, tokens: int, lens_tokens: int) -> dict[str, float]:
    import transformers
    from transformer_lens.model_bridge import TransformerBridge

    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = TransformerBridge.boot_transformers(checkpoint, hf_model=theirs, tokenizer=tokenizer)
    found: dict[str, float] = {}
    keep = lambda name: name.endswith(("hook_out", "hook_resid_post")) and name.count(".") == 2  # noqa: E731

    def run(turn: int, n: int = tokens, **more: Any) -> Any:
        return model.generate(
            ids_of(1, turn), max_new_tokens=n, stop_at_eos=False, do_sample=False, verbose=False, **more
        )

    run(9, 4)
    found["plain_ms_1"] = 1e3 * least(run, 2) / tokens
    found["captured_ms_1"] = (
        1e3 * least(lambda turn: run(turn, return_cache=True, names_filter=keep), 2) / tokens
    )
    ids = run(1, lens_tokens)
    ids = (ids if isinstance(ids, torch.Tensor) else model.to_tokens(ids))[:, :-1]

    def lens(_: int) -> None:
        _, cache = model.run_with_cache(ids)
        stack = cache.accumulated_resid(layer=-1, incl_mid=False, apply_ln=True)
        target = ids[0, PROMPT - 1 :].unsqueeze(-1)
        for rows in stack[:, 0, PROMPT - 1 :]:
            logprobs = torch.log_softmax(rows @ model.W_U + model.b_U, -1)
            logprobs.topk(5)
            (logprobs > logprobs.gather(-1, target)).sum(-1)

    found["lens_s"] = least(lens, 1)
    return found


def nnsight_figures(checkpoint: str, tokens: int, lens_tokens: int) -> dict[str, float]:
    import nnsight
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model = nnsight.LanguageModel(checkpoint, dtype=torch.float32, dispatch=True)
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}

    def plain(turn: int, n: int = tokens) -> Any:
        return theirs.generate(ids_of(1, turn), max_new_tokens=n, min_new_tokens=n, **options)

    def captured(turn: int, n: int = tokens) -> Any:
        with model.generate(ids_of(1, turn), max_new_tokens=n, min_new_tokens=n, **options) as tracer:
            states = list().save()  # noqa: C408
            with tracer.iter[:]:
                for layer in model.model.layers:
                    states.append(layer.output[0])
        return states

    plain(9, 4), captured(9, 4)
    return {
        "plain_ms_1": 1e3 * least(plain, 2) / tokens,
        "captured_ms_1": 1e3 * least(captured, 2) / tokens,
    }


def main() -> None:
    kind, checkpoint, threads, tokens, lens_tokens = sys.argv[1:]
    torch.set_num_threads(int(threads))
    figures = {
        "transformers": transformers_figures,
        "transformer_lens": transformer_lens_figures,
        "nnsight": nnsight_figures,
    }[kind]
    with torch.no_grad():
        print(json.dumps(figures(checkpoint, int(tokens), int(lens_tokens))))


if __name__ == "__main__":
    main()
