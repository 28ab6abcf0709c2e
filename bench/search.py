"""How often is the most probable answer of 8 tokens certified, and how often do greedy and beam search miss it?

    python bench/search.py MODEL.gguf --prompts 100 --max-nodes 200
    python bench/search.py MODEL.gguf --transformers --prompts 2    # needs torch, transformers and gguf

Prompts are the questions of ../shared/data/eval/arc_easy_300.jsonl. --transformers opens the same prefixes, in batches
of the same size, by transformers without a shared tree: every prefix is computed from its first token on, in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from machine import ROOT

DATA = ROOT / "../shared/data/eval/arc_easy_300.jsonl"


def prompts(count: int, path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["query"] + "\nAnswer:" for line in lines]


def ours(arguments: argparse.Namespace) -> None:
    from pellucid import LLM

    certified = greedy = beam = nodes = rows = empty = 0
    found_greedy = found_beam = 0
    gaps, seconds = [], 0.0
    with LLM(arguments.model, num_threads=arguments.threads) as llm:
        asked = prompts(arguments.prompts, arguments.data)
        llm.search(asked[0], max_tokens=arguments.tokens, max_nodes=32)  # warm
        for prompt in asked:
            result = llm.search(
                prompt,
                max_tokens=arguments.tokens,
                min_tokens=arguments.min_tokens,
                max_nodes=arguments.max_nodes,
                batch_size=arguments.batch,
            )
            nodes += result.nodes
            rows += result.work.rows
            empty += len(result.outputs[0].token_ids) == 1
            seconds += result.seconds
            found_greedy += result.greedy_error
            found_beam += result.beam_error
            if result.certified:
                certified += 1
                greedy += result.greedy_error
                beam += result.beam_error
            else:
                gaps.append(result.gap)
    total = len(asked)
    print(f"{total} prompts, {arguments.tokens} tokens, at most {arguments.max_nodes} nodes each")
    print(f"certified: {certified} ({100 * certified / total:.0f} %)")
    print(f"search errors among the certified: greedy {greedy}, beam 4 {beam}")
    print(f"known search errors among all: greedy {found_greedy}, beam 4 {found_beam}")
    if gaps:
        print(f"gap of the others, nats: median {sorted(gaps)[len(gaps) // 2]:.2f}, largest {max(gaps):.2f}")
    print(f"the best output found is empty: {empty}")
    print(f"{rows} rows computed, prompts and beams too: {rows / seconds:.0f} rows/s")
    print(f"{nodes} nodes in {seconds:.1f} s: {nodes / seconds:.0f} nodes/s")


def theirs(arguments: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(arguments.threads)
    folder, name = str(Path(arguments.model).parent), Path(arguments.model).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    opened, seconds = 0, 0.0
    for prompt in prompts(arguments.prompts, arguments.data):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        # Prefixes of half the depth, in batches: the mean of what the search opens.
        rows = torch.cat([ids, ids[:, -1:].repeat(1, arguments.tokens // 2)], 1).repeat(arguments.batch, 1)
        with torch.no_grad():
            model(rows)
            for _ in range(2):
                start = time.perf_counter()
                torch.log_softmax(model(rows, logits_to_keep=1).logits[:, -1].double(), -1)
                seconds += time.perf_counter() - start
                opened += arguments.batch
    print(f"transformers {opened} nodes in {seconds:.1f} s: {opened / seconds:.0f} nodes/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--min-tokens", type=int, default=0)
    parser.add_argument("--max-nodes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--transformers", action="store_true")
    arguments = parser.parse_args()
    (theirs if arguments.transformers else ours)(arguments)


if __name__ == "__main__":
    main()
