"""What does turn k of a chat cost? Time to the first token of each turn of one conversation that grows.

    python bench/chat.py MODEL.gguf [--turns 20] [--new 100] [--answer 100] [--only pellucid]

Every turn brings the same number of new prompt tokens and gets an answer of the same length, in pellucid, in
llama.cpp's server (cache_prompt) and in transformers (one DynamicCache that grows). The goal: the last turn's first
token within 1.3 times the first turn's, and the attention over the history, which the ratio here includes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from llama_server import completion, running
from machine import describe

WORDS = [
    "the",
    "river",
    "runs",
    "past",
    "a",
    "mill",
    "and",
    "people",
    "of",
    "town",
    "meet",
    "in",
    "evening",
    "to",
    "talk",
]


def message(tokenizer: Any, number: int, tokens: int) -> str:
    """A text of about `tokens` tokens, another one for each turn."""
    text = f"Turn {number}:"
    index = number
    while len(tokenizer.encode(text, add_bos=False)) < tokens:
        text += " " + WORDS[index % len(WORDS)]
        index += 1
    return text


def ours(
    model: Path, args: argparse.Namespace
) -> tuple[list[dict[str, float]], list[list[int]], list[list[int]]]:
    """pellucid's turns; and the prompts and answers, as ids, that the peers are given."""
    from pellucid import LLM

    rows, prompts, answers = [], [], []
    with LLM(model, num_threads=args.threads) as llm:
        llm.generate("warm up", max_tokens=4)
        chat = llm.chat_session(max_tokens=args.answer, ignore_eos=True)
        overhead = len(llm.render_chat([{"role": "user", "content": ""}]))
        for number in range(args.turns):
            # The first turn has the header of the template as well: fewer words, so that all turns bring as much.
            words = args.new - (overhead if number == 0 else 10)
            text = message(llm.tokenizer, number, words)
            start = time.perf_counter()
            answer = chat.say(text)
            next(answer)
            first = time.perf_counter() - start
            turn = answer.read()
            rows.append({"first": first, "new": turn.change.added, "prompt": len(turn.prompt),
                         "computed": turn.result.counts.computed})  # fmt: skip
            prompts.append(turn.prompt.ids)
            answers.append(turn.token_ids)
    return rows, prompts, answers


# --- llama.cpp's server -------------------------------------------------------------------------------------
def server(model: Path, args: argparse.Namespace, prompts: list[list[int]]) -> list[dict[str, float]]:
    """The same conversation: each turn's prompt is what was there and as many new tokens."""
    port, rows, history = 18231, [], []
    with running(model, port, args.threads, "-c 8192 -np 1"):
        for prompt in prompts:
            # The new tokens of this turn after the server's own answers, so that its cache fits as ours does.
            new = prompt if not history else prompt[-rows[0]["new"] :]
            whole = [*history, *new]
            start, first, answer = time.perf_counter(), 0.0, []
            for event in completion(port, whole, args.answer):
                first = first or time.perf_counter() - start
                answer += event.get("tokens", [])
            rows.append({"first": first, "new": len(new), "prompt": len(whole)})
            history = [*whole, *answer]
    return rows


# --- transformers -------------------------------------------------------------------------------------------
TRANSFORMERS = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, DynamicCache
told = json.load(sys.stdin)
torch.set_num_threads(told["threads"])
folder, _, file = told["model"].rpartition("/")
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
rows, cache, there = [], DynamicCache(), 0
with torch.inference_mode():
    model(torch.tensor([[1, 2, 3, 4]]))
    for prompt, answer in zip(told["prompts"], told["answers"]):
        start = time.perf_counter()
        new = prompt[there:]
        logits = model(torch.tensor([new]), past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        int(logits[0, -1].argmax())
        rows.append({"first": time.perf_counter() - start, "new": len(new), "prompt": len(prompt)})
        model(torch.tensor([answer]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        there = len(prompt) + len(answer)
print(json.dumps(rows))
"""


def transformers(
    model: Path, args: argparse.Namespace, prompts: list[list[int]], answers: list[list[int]]
) -> list[dict[str, float]]:
    """Our prompts and answers; the answers are given to it at once, which is faster than it would decode them."""
    told = {"model": str(model), "threads": args.threads, "prompts": prompts, "answers": answers}
    done = subprocess.run(
        [args.transformers_python, "-c", TRANSFORMERS], input=json.dumps(told), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    rows: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return rows


# --- the table ----------------------------------------------------------------------------------------------
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--new", type=int, default=100, help="new prompt tokens of a turn")
    parser.add_argument("--answer", type=int, default=100, help="tokens of an answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", action="append", choices=["pellucid", "llama.cpp", "transformers"])
    parser.add_argument(
        "--transformers-python", default=sys.executable, help="an interpreter that has transformers"
    )
    args = parser.parse_args()
    wanted = args.only or ["pellucid", "llama.cpp", "transformers"]
    mine, prompts, answers = ours(args.model, args)
    results: dict[str, Any] = {"pellucid": mine}
    for name, run in (
        ("llama.cpp", lambda: server(args.model, args, prompts)),
        ("transformers", lambda: transformers(args.model, args, prompts, answers)),
    ):
        if name in wanted:
            try:
                results[name] = run()
            except (OSError, RuntimeError) as error:
                results[name] = str(error)
    report(args, results)


def report(args: argparse.Namespace, results: dict[str, Any]) -> None:
    print(json.dumps({"machine": describe(), "results": results}))
    print(
        f"\n{args.model.name}, {args.turns} turns of {args.new} + {args.answer} tokens, {args.threads} threads\n"
    )
    print("| engine | first token of turn 1, ms | of the last three turns, ms | ratio | history, tokens |")
    print("|---|---|---|---|---|")
    for name, rows in results.items():
        if isinstance(rows, str):
            print(f"| {name} | {rows} | | | |")
            continue
        first, last = rows[0]["first"], median(row["first"] for row in rows[-3:])
        history = rows[-1]["prompt"] - rows[-1]["new"]
        print(f"| {name} | {first * 1e3:.0f} | {last * 1e3:.0f} | {last / first:.2f} | {history} |")


if __name__ == "__main__":
    main()
