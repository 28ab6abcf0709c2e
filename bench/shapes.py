"""GGUF files with the shapes of larger models and random weights, to measure what two downloaded models cannot show.

    python bench/shapes.py FOLDER [--shapes qwen2.5-0.5b,qwen3-0.6b,llama-3.2-1b,...]
    python bench/peers.py FOLDER/*.gguf --peers llama.cpp --only throughput

Speed depends on shapes and formats alone, but for the certified partial head, which computes more where logits are
close to each other. The formats are those of llama.cpp's Q4_K_M: Q4_K, Q6_K for the head and half of the value and
down projections; where 256 does not divide the inputs, Q5_0 and Q8_0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from tiny_tokenizers import bpe_vocabulary, gguf_bpe

Kind = gguf.GGMLQuantizationType

#          architecture, width, mlp, layers, heads, KV heads, head_dim, vocabulary, rope base, tied
SHAPES: dict[str, tuple[str, int, int, int, int, int, int, int, float, bool]] = {
    "qwen2.5-0.5b": ("qwen2", 896, 4864, 24, 14, 2, 64, 151936, 1e6, True),
    "qwen3-0.6b": ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, 1e6, True),
    "llama-3.2-1b": ("llama", 2048, 8192, 16, 32, 8, 64, 128256, 5e5, True),
    "tinyllama-1.1b": ("llama", 2048, 5632, 22, 32, 4, 64, 32000, 1e4, False),
    "gemma3-1b": ("gemma3", 1152, 6912, 26, 4, 1, 256, 262144, 1e6, True),
}

# Where the float16 scales of a block are, in halves, and what makes weights of standard deviation 0.02.
SCALES = {
    Kind.Q4_K: {0: 1.4e-4, 1: 1.05e-3},
    Kind.Q6_K: {104: 1.5e-5},
    Kind.Q5_0: {0: 2.2e-3},
    Kind.Q8_0: {0: 2.7e-4},
}


def blocks(rng: np.random.Generator, kind: Kind, rows: int, inputs: int) -> np.ndarray:
    """uint8 [rows, bytes of a row]: random bits, with scales that keep the values small."""
    size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * inputs // size, num_bytes), dtype=np.uint8)
    halves = raw.view(np.float16)
    for place, scale in SCALES[kind].items():
        halves[:, place] = scale
    return raw.reshape(rows, -1)


def kind_of(inputs: int, fine: bool) -> Kind:
    if inputs % 256 == 0:
        return Kind.Q6_K if fine else Kind.Q4_K
    return Kind.Q8_0 if fine else Kind.Q5_0


def tensors(name: str) -> Iterator[tuple[str, np.ndarray, Kind | None]]:
    architecture, width, mlp, layers, heads, kv_heads, head_dim, vocabulary, _, tied = SHAPES[name]
    rng = np.random.default_rng(0)

    def matrix(noun: str, rows: int, inputs: int, fine: bool = False) -> tuple[str, np.ndarray, Kind]:
        kind = kind_of(inputs, fine)
        return f"{noun}.weight", blocks(rng, kind, rows, inputs), kind

    def vector(noun: str, size: int, value: float = 1.0) -> tuple[str, np.ndarray, None]:
        return noun, np.full(size, value, np.float32), None

    yield matrix("token_embd", vocabulary, width, fine=True)
    yield vector("output_norm.weight", width)
    if not tied:
        yield matrix("output", vocabulary, width, fine=True)
    for index in range(layers):
        layer = f"blk.{index}."
        fine = index < layers // 8 or index >= 7 * layers // 8 or (index - layers // 8) % 3 == 2
        yield vector(layer + "attn_norm.weight", width)
        yield vector(layer + "ffn_norm.weight", width)
        yield matrix(layer + "attn_q", heads * head_dim, width)
        yield matrix(layer + "attn_k", kv_heads * head_dim, width)
        yield matrix(layer + "attn_v", kv_heads * head_dim, width, fine)
        yield matrix(layer + "attn_output", width, heads * head_dim)
        yield matrix(layer + "ffn_gate", mlp, width)
        yield matrix(layer + "ffn_up", mlp, width)
        yield matrix(layer + "ffn_down", width, mlp, fine)
        if architecture == "qwen2":
            for noun, size in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                yield vector(f"{layer}attn_{noun}.bias", size * head_dim, 0.0)
        if architecture in ("qwen3", "gemma3"):
            yield vector(layer + "attn_q_norm.weight", head_dim)
            yield vector(layer + "attn_k_norm.weight", head_dim)
        if architecture == "gemma3":
            yield vector(layer + "post_attention_norm.weight", width)
            yield vector(layer + "post_ffw_norm.weight", width)


def vocabulary_of(size: int) -> dict[str, Any]:
    """A BPE vocabulary of the tests, filled up with words that no merge makes."""
    settings = gguf_bpe(400)
    pieces, _ = bpe_vocabulary(400)
    pieces += [f"<{i}>" for i in range(400, size)]
    return settings | {"add_token_list": pieces, "add_token_types": [3, 3] + [1] * (size - 2)}


def write(path: Path, name: str) -> None:
    architecture, width, mlp, layers, heads, kv_heads, head_dim, vocabulary, rope_base, _ = SHAPES[name]
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocabulary)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope_base)
    if architecture == "gemma3":
        writer.add_sliding_window(512)
    for method, value in vocabulary_of(vocabulary).items():
        getattr(writer, method)(value)
    for noun, tensor, kind in tensors(name):
        writer.add_tensor(noun, tensor, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.shapes.split(","):
        write(arguments.folder / f"{name}-random-Q4_K_M.gguf", name)
        print(arguments.folder / f"{name}-random-Q4_K_M.gguf")


if __name__ == "__main__":
    main()
