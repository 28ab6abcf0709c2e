"""What does a format of K and V cost in accuracy? KL divergence to the float32 cache of the same weights.

    python bench/kv_accuracy.py MODEL.gguf TEXT [--tokens 2048] [--piece 512]

Mean and largest KL(f32 || format) in nats over all positions of the text's first tokens, in pieces that begin anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pellucid import LLM
from pellucid.types import Float32

FORMATS = ("f16", "i16", "bf16", "q8_0")


def log_softmax(row: Float32) -> np.ndarray:
    x = row.astype(np.float64) - row.max()
    return x - np.log(np.exp(x).sum())


def divergences(wanted: Float32, found: Float32) -> list[float]:
    out = []
    for a, b in zip(wanted, found, strict=True):
        p, q = log_softmax(a), log_softmax(b)
        out.append(float((np.exp(p) * (p - q)).sum()))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--piece", type=int, default=512)
    parser.add_argument("--formats", default=",".join(FORMATS))
    options = parser.parse_args()
    formats = options.formats.split(",")
    load = {
        name: LLM(options.model, kv_format=name, context_length=options.piece) for name in ("f32", *formats)
    }
    ids = load["f32"].tokenizer.encode(options.text.read_text()[: 8 * options.tokens])[: options.tokens]
    gathered: dict[str, list[float]] = {name: [] for name in formats}
    for start in range(0, len(ids), options.piece):
        piece = ids[start : start + options.piece]
        wanted = load["f32"].logits(piece)
        for name in formats:
            gathered[name] += divergences(wanted, load[name].logits(piece))
    print("| model | KV format | positions | mean KL | largest KL |\n|---|---|---|---|---|")
    for name, values in gathered.items():
        print(
            f"| {load['f32'].info.name} | {name} | {len(values)} | {np.mean(values):.2e} | {max(values):.2e} |"
        )


if __name__ == "__main__":
    main()
