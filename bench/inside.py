"""Runs inside a peer's own environment (so: no import of ours), one process for each measurement.

    python inside.py ENGINE MODEL THREADS throughput PREFILL DECODE TOKENS_EACH SEQUENCES,...   -> one JSON line
    python inside.py ENGINE MODEL THREADS first TEXT                        -> the first token's text
    python inside.py ENGINE MODEL THREADS generation PREFILL DECODE         -> nothing; for its peak memory

Every engine is one function: load(model, threads) -> generate(prompts as ids, tokens of each) and first(text).
Decode speed is the time of n tokens less the time of one, so that it needs no engine's own counters. Prompts are never
the same twice: some engines keep prefixes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

Generate = Callable[[list[list[int]], int], None]
First = Callable[[str], str]
random.seed(7)


def openvino(model: str, threads: int) -> tuple[Generate, First]:
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)

    def settings(tokens: int) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        return config

    def generate(prompts: list[list[int]], tokens: int) -> None:
        import numpy
        import openvino

        ids = numpy.array(prompts, numpy.int64)
        mask = openvino.Tensor(numpy.ones_like(ids))
        pipeline.generate(genai.TokenizedInputs(openvino.Tensor(ids), mask), settings(tokens))

    return generate, lambda text: str(pipeline.generate(text, settings(1)))


def ctranslate2(model: str, threads: int) -> tuple[Generate, First]:
    import ctranslate2
    import tokenizers

    checkpoint = os.path.join(
        model, "..", os.path.basename(model).replace("ct2-", "hf-", 1), "tokenizer.json"
    )
    tokenizer = tokenizers.Tokenizer.from_file(checkpoint)
    engine = ctranslate2.Generator(model, compute_type="int8", intra_threads=threads, inter_threads=1)

    def run(prompts: list[list[str]], tokens: int) -> Any:
        return engine.generate_batch(
            prompts, min_length=tokens, max_length=tokens, sampling_topk=1, include_prompt_in_result=False
        )

    def generate(prompts: list[list[int]], tokens: int) -> None:
        run([[tokenizer.id_to_token(i) for i in ids] for ids in prompts], tokens)

    def first(text: str) -> str:
        return str(tokenizer.decode(run([tokenizer.encode(text).tokens], 1)[0].sequences_ids[0]))

    return generate, first


def transformers(model: str, threads: int, dtype: str) -> tuple[Generate, First]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    engine = AutoModelForCausalLM.from_pretrained(model, torch_dtype=getattr(torch, dtype))

    def run(ids: Any, tokens: int) -> Any:
        # A bare tensor has no padding; min_new_tokens keeps the end token out.
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            return engine.generate(ids, attention_mask=torch.ones_like(ids), **settings)

    def generate(prompts: list[list[int]], tokens: int) -> None:
        run(torch.tensor(prompts), tokens)

    def first(text: str) -> str:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = tokenizer(text, return_tensors="pt").input_ids
        return str(tokenizer.decode(run(ids, 1)[0, -1:]))

    return generate, first


def vllm(model: str, threads: int, *, compiled: bool) -> tuple[Generate, First]:
    """compiled: through torch.compile, its default, about a minute before the first token; without, half of that."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = (
        "0"  # in this process: a start less, decoding 1.2 times as fast
    )
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"  # stdout is for the result
    from vllm import LLM, SamplingParams

    settings = {"max_model_len": 1024, "max_num_seqs": 16, "seed": 0, "enforce_eager": not compiled}
    engine = LLM(model=model, dtype="bfloat16", **settings)

    def run(prompts: Any, tokens: int) -> Any:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        return engine.generate(prompts, params, use_tqdm=False)

    def generate(prompts: list[list[int]], tokens: int) -> None:
        run([{"prompt_token_ids": ids} for ids in prompts], tokens)

    return generate, lambda text: str(run([text], 1)[0].outputs[0].text)


ENGINES: dict[str, Callable[[str, int], tuple[Generate, First]]] = {
    "openvino": openvino,
    "ctranslate2": ctranslate2,
    "transformers-float32": lambda model, threads: transformers(model, threads, "float32"),
    "transformers-bfloat16": lambda model, threads: transformers(model, threads, "bfloat16"),
    "vllm": lambda model, threads: vllm(model, threads, compiled=sys.argv[4] != "first"),
}


def fresh_prompts(number: int, length: int) -> list[list[int]]:
    """Ids that every vocabulary of ours has and that are no control tokens."""
    return [[random.randrange(300, 40_000) for _ in range(length)] for _ in range(number)]


def seconds(generate: Generate, number: int, length: int, tokens: int) -> float:
    prompts = fresh_prompts(number, length)
    start = time.perf_counter()
    generate(prompts, tokens)
    return time.perf_counter() - start


def decode_rate(generate: Generate, number: int, tokens: int) -> float:
    """Tokens per second of `number` sequences in all, after their first."""
    one, all_of_them = (seconds(generate, number, 8, n) for n in (1, tokens))
    return number * (tokens - 1) / max(all_of_them - one, 1e-9)


def throughput(
    generate: Generate, prefill: int, decode: int, each: int, numbers: list[int]
) -> dict[str, Any]:
    seconds(
        generate, 1, 32, 4
    )  # warm-up; then every shape once as a whole would be fairer still, and too slow
    seconds(generate, 1, prefill, 1)
    result: dict[str, Any] = {"prefill": prefill / seconds(generate, 1, prefill, 1)}
    result["decode"] = decode_rate(generate, 1, decode)
    result["sequences"] = {number: decode_rate(generate, number, each) for number in numbers}
    return result


def main() -> None:
    name, model, threads, action, *rest = sys.argv[1:]
    os.environ["OMP_NUM_THREADS"] = threads
    generate, first = ENGINES[name](model, int(threads))
    if action == "first":
        print(first(rest[0]), flush=True)
    elif action == "generation":
        generate(fresh_prompts(1, int(rest[0])), int(rest[1]))
    else:
        numbers = [int(number) for number in rest[3].split(",")]
        print(json.dumps(throughput(generate, int(rest[0]), int(rest[1]), int(rest[2]), numbers)))


if __name__ == "__main__":
    main()
