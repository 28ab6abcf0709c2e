"""What speculation saves, by the categories of Spec-Bench; the texts of both ways are compared, token by token.

    python bench/speculation.py MODEL spec_bench.jsonl [--prompts 4] [--tokens 96] [--runs 3] [--temperature 0]
        [--modes off,auto] [--draft-model MODEL] [--draft-corpus N] [--tasks qa,rag] [--llamacpp MODES] [--json]

The prompts are the first turns of https://github.com/hemingkx/Spec-Bench, as a chat where the model has a template.
Times are those after the first token, the prompt being in the prefix cache; the modes take turns on every prompt; each
counts by its quickest run. A speed-up is the time of all prompts of a category without, by the time with. Where
passes cost time, `--costs` prints what the engine has measured, by rows.

--llamacpp none,ngram-simple,ngram-cache: the same prompts through llama.cpp's server (bench/llama_server.py), one
process for each of its --spec-type; its own `predicted_ms` count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict

from llama_server import running, timings

# Spec-Bench's six tasks; the eight categories of MT-bench are its "multi-turn conversation".
TASKS = {"translation": "translation", "summarization": "summarisation", "qa": "questions"}
TASKS |= {"math_reasoning": "mathematics", "rag": "retrieval"}

LEAST_TOKENS = 8  # answers that are shorter do not count

LINE = (
    "{task:20} {mode:8} {speed:6.1f} -> {with_it:6.1f} tokens/s  x{gain:.2f} (worst {worst:.2f})  "
    "{accepted:.2f} right of {drafted:.2f} guesses in a pass, {saved:.0%} of the tokens"
)


def prompts_of(path, count, wanted):
    found = defaultdict(list)
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            task = TASKS.get(row["category"], "conversation")
            if not wanted or task in wanted:
                found[task].append(row["turns"][0])
    for task, texts in found.items():  # spread over the whole task, so that every category of it comes
        step = max(1, len(texts) // count)
        found[task] = texts[::step][:count]
    return found


def measure(llm, ids, modes, options):
    """{mode: (seconds after the first token, tokens, what was guessed)}; the quickest of the runs."""
    best, expected = {}, None
    given = {
        "max_tokens": options.tokens,
        "temperature": options.temperature,
        "max_drafts": options.max_drafts,
    }
    given["seed"] = 1
    llm.generate(ids, max_tokens=1)
    for _ in range(options.runs):
        for mode in modes:
            result = llm.generate(ids, **given, speculation=mode)
            expected = result.token_ids if expected is None else expected
            if result.token_ids != expected:
                raise SystemExit(f"{mode}: the tokens differ")
            seconds = result.timings.total - result.timings.time_to_first_token
            if mode not in best or seconds < best[mode][0]:
                best[mode] = (seconds, len(result.token_ids) - 1, result.speculation)
    return best


def peer(options, encoded):
    """Rows of llama.cpp's modes, each beside its own "none"."""
    port, found, without = 18233, {}, options.llamacpp.split(",")[0]
    for mode in options.llamacpp.split(","):
        with running(options.model, port, options.threads, f"-c {options.context} -np 1 --spec-type {mode}"):
            for task, prompts in encoded.items():
                for number, ids in enumerate(prompts):
                    runs = [ask(port, ids, options.tokens) for _ in range(options.runs + 1)][1:]
                    found.setdefault((task, number), {})[mode] = min(runs)
        for task, prompts in encoded.items() if mode != without else ():
            yield summary(task, mode, without, [found[task, number] for number in range(len(prompts))])


def ask(port, ids, tokens):
    """(seconds after the first token, tokens, None: nothing of guesses)."""
    told = timings(port, ids, tokens)
    return told["predicted_ms"] / 1e3, told["predicted_n"], None


def main() -> None:
    from pellucid import LLM

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--max-drafts", type=int, default=15)
    parser.add_argument("--modes", default="off,auto")
    parser.add_argument("--tasks", default="", help="of: conversation, " + ", ".join(TASKS.values()))
    parser.add_argument("--llamacpp", default="")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--draft-model")
    parser.add_argument("--draft-corpus", type=int, default=0)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--costs", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    modes = options.modes.split(",")
    load = {"draft_model": options.draft_model, "draft_corpus": options.draft_corpus}
    rows, encoded = [], defaultdict(list)
    with LLM(options.model, context_length=options.context, num_threads=options.threads, **load) as llm:
        wanted = options.tasks.split(",") if options.tasks else ()
        for task, texts in prompts_of(options.file, options.prompts, wanted).items():
            found = []
            for text in texts:
                if llm.tokenizer.chat_template:
                    ids = llm.render_chat([{"role": "user", "content": text}])
                else:
                    ids = llm.tokenizer.encode(text)
                encoded[task].append(ids[: options.context - options.tokens])
                if options.modes:
                    found.append(measure(llm, encoded[task][-1], modes, options))
            found = [each for each in found if each[modes[0]][1] >= LEAST_TOKENS]
            for mode in modes[1:] if found else ():
                rows.append(summary(task, mode, modes[0], found))
                if not options.json:
                    print(LINE.format(**rows[-1]), flush=True)
        if options.costs:
            costs = llm._need().engine.costs
            print({rows: round(seconds * 1e3, 2) for rows, seconds in sorted(costs._medians.items())})
    for row in peer(options, encoded) if options.llamacpp else ():
        rows.append(row)
        if not options.json:
            print(LINE.format(**row), flush=True)
    if options.json:
        print(json.dumps(rows))


def summary(task, mode, without, found):
    plain, with_it = (sum(each[m][0] for each in found) for m in (without, mode))
    tokens = sum(each[mode][1] for each in found)
    counts = [each[mode][2] for each in found if each[mode][2] is not None]
    passes = sum(c.passes for c in counts)
    return {
        "task": task,
        "mode": mode,
        "speed": tokens / plain,
        "with_it": tokens / with_it,
        "gain": plain / with_it,
        "worst": min(each[without][0] / each[mode][0] for each in found),
        "median": statistics.median(each[without][0] / each[mode][0] for each in found),
        "accepted": sum(c.accepted for c in counts) / passes if passes else 0.0,
        "drafted": sum(c.drafted for c in counts) / passes if passes else 0.0,
        "saved": sum(c.accepted for c in counts) / tokens,
    }


if __name__ == "__main__":
    main()
