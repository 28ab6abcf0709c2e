"""Tiny random models as files: a Hub-style directory, and GGUF with llama.cpp's names and permutation.

The GGUF is written from the Hub's tensors by rules stated here, independently of how pellucid reads them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_configs import architecture_of, variant
from tiny_tokenizers import gguf_bpe, gguf_spm, write_tokenizer
from tiny_weights import Weights, head_dim_of, random_weights

QUANTS = gguf.GGMLQuantizationType


def write_hub(
    folder: Path,
    config: dict[str, Any],
    weights: Weights,
    dtype: Any = np.float32,
    texts: Sequence[str] | None = None,
) -> Path:
    """config.json, model.safetensors (float32 or float16) and a tokenizer in `folder`; texts: it is trained on
    them."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(
        {name: np.ascontiguousarray(t, dtype) for name, t in weights.items()},
        str(folder / "model.safetensors"),
    )
    write_tokenizer(folder, config["vocab_size"], texts)
    return folder


def write_gguf(
    path: Path, config: dict[str, Any], weights: Weights, quant: str = "F32", spm: bool = False
) -> Path:
    """One GGUF file. quant: the type of every matrix whose rows its blocks divide (else Q8_0); vectors are
    F32."""
    architecture = architecture_of(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), architecture)
    (_gpt2_settings if architecture == "gpt2" else _decoder_settings)(writer, config)
    for method, value in (gguf_spm if spm else gguf_bpe)(config["vocab_size"]).items():
        getattr(writer, method)(value)
    rename = _gpt2_tensors if architecture == "gpt2" else _decoder_tensors
    for name, tensor in rename(config, weights):
        _add_tensor(writer, name, np.ascontiguousarray(tensor, np.float32), QUANTS[quant])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def make(root: Path, name: str, container: str, quant: str = "F32", seed: int = 0) -> Path:
    """The checkpoint of a variant of `tiny_configs.VARIANTS`. container: "safetensors" or "gguf"."""
    config = variant(name)
    weights = random_weights(config, seed)
    if container == "safetensors":
        return write_hub(root / name, config, weights)
    return write_gguf(root / f"{name}-{quant}.gguf", config, weights, quant)


# --- settings ---------------------------------------------------------------------------------------------
def _decoder_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    head_dim = head_dim_of(config)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    if config.get("num_key_value_heads"):
        writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    if config["model_type"] == "mistral" and config["sliding_window"]:
        writer.add_sliding_window(config["sliding_window"])
    parameters = rope_parameters(config)
    if "rope_theta" in parameters:
        writer.add_rope_freq_base(parameters["rope_theta"])
    if parameters.get("rope_type", parameters.get("type")) == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    if parameters.get("rope_type", parameters.get("type")) == "yarn":
        _yarn_settings(writer, parameters)
    if architecture_of(config) == "gemma3":
        _gemma3_settings(writer, config)


def _yarn_settings(writer: gguf.GGUFWriter, parameters: dict[str, Any]) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(parameters["factor"])
    writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
    for name, add in (
        ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if name in parameters:
            add(parameters[name])


def _gemma3_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_sliding_window(config["sliding_window"])
    if "layer_types" in config:
        writer.add_array(
            "gemma3.attention.sliding_window_pattern", [t.startswith("s") for t in config["layer_types"]]
        )
    elif config["sliding_window_pattern"] != 6:
        writer.add_uint32("gemma3.attention.sliding_window_pattern", config["sliding_window_pattern"])
    if "rope_parameters" in config:
        writer.add_float32(
            "gemma3.rope.freq_base_swa", config["rope_parameters"]["sliding_attention"]["rope_theta"]
        )
    if config["query_pre_attn_scalar"] != config["head_dim"]:
        writer.add_float32("gemma3.attention.scale", config["query_pre_attn_scalar"] ** -0.5)


def _gpt2_settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """The rotation of the layers that attend to everything, in one form."""
    found = config.get("rope_parameters") or {**(config.get("rope_scaling") or {})}
    found = found.get("full_attention", found)
    return {**({"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}), **found}


# --- tensors ----------------------------------------------------------------------------------------------
DECODER_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA3_NAMES = DECODER_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def gguf_name(hub: str, names: dict[str, str]) -> str:
    """model.layers.3.mlp.up_proj.weight -> blk.3.ffn_up.weight"""
    stem, part = hub.rsplit(".", 1)
    for prefix in ("model.layers.", "transformer.h."):
        if stem.startswith(prefix):
            index, noun = stem.removeprefix(prefix).split(".", 1)
            return f"blk.{index}.{names[noun]}.{part}"
    return f"{names[stem.removeprefix('transformer.')]}.{part}"


def permuted(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or a bias) of query or key with rotation pairs (i, i + half) of each head made neighbours."""
    grouped = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return grouped.swapaxes(1, 2).reshape(tensor.shape)


def llama3_factors(head_dim: int, parameters: dict[str, Any]) -> np.ndarray:
    """The divisors of llama.cpp's rope_freqs.weight [head_dim / 2], by wavelength, one at a time."""
    base, context = parameters.get("rope_theta", 10000.0), parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * base ** (i / head_dim)
        if wavelength < context / high:
            factors.append(1.0)
        elif wavelength > context / low:
            factors.append(parameters["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / parameters["factor"] + smooth))
    return np.array(factors, np.float32)


def _decoder_tensors(config: dict[str, Any], weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    architecture = architecture_of(config)
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    for hub, tensor in weights.items():
        if architecture == "llama" and "q_proj" in hub:
            tensor = permuted(tensor, heads)
        elif architecture == "llama" and "k_proj" in hub:
            tensor = permuted(tensor, kv_heads)
        elif architecture == "gemma3" and "norm" in hub:
            tensor = tensor + np.float32(1.0)
        yield gguf_name(hub, GEMMA3_NAMES if architecture == "gemma3" else DECODER_NAMES), tensor
    parameters = rope_parameters(config)
    if parameters.get("rope_type") == "llama3":
        yield "rope_freqs.weight", llama3_factors(head_dim_of(config), parameters)


def _gpt2_tensors(config: dict[str, Any], weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    for hub, tensor in weights.items():
        is_conv1d = ".c_" in hub and tensor.ndim == 2
        yield gguf_name(hub, GPT2_NAMES), tensor.T if is_conv1d else tensor


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, quant: gguf.GGMLQuantizationType
) -> None:
    if tensor.ndim == 1 or quant == QUANTS.F32:
        writer.add_tensor(name, tensor)
        return
    block = gguf.GGML_QUANT_SIZES[quant][0]
    kind = quant if tensor.shape[-1] % block == 0 else QUANTS.Q8_0
    writer.add_tensor(name, _quantized(name, tensor, kind), raw_dtype=kind)


def _quantized(name: str, tensor: np.ndarray, quant: gguf.GGMLQuantizationType) -> np.ndarray:
    """The `gguf` package's quantisation; K-quants, which it only reads, as random blocks of a like scale."""
    if not quant.name.endswith("_K"):
        return gguf.quants.quantize(tensor, quant)
    return random_k_blocks(tensor, quant, seed=zlib.crc32(name.encode()))


# Where the float16 scales lie in each super-block of 256 values: the byte of d, and that of dmin with the
# middle of the quants, which times d makes the values' mean about 0.
K_SCALES = {"Q2_K": ((80, 1.0), (82, 1.5)), "Q3_K": ((108, 1.0),), "Q4_K": ((0, 1.0), (2, 7.5)),
            "Q5_K": ((0, 1.0), (2, 15.5)), "Q6_K": ((208, 1.0),)}  # fmt: skip


def random_k_blocks(tensor: np.ndarray, quant: gguf.GGMLQuantizationType, seed: int) -> np.ndarray:
    """uint8 [rows, bytes]: random super-blocks, scaled so that their values have the tensor's deviation."""
    block, size = gguf.GGML_QUANT_SIZES[quant]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (tensor.size // block, size), dtype=np.uint8)
    spread = rng.uniform(0.7, 1.3, len(blocks))

    def set_scales(scale: float) -> None:
        for at, middle in K_SCALES[quant.name]:
            blocks[:, at : at + 2] = (scale * middle * spread).astype(np.float16)[:, None].view(np.uint8)

    set_scales(1e-3)  # to learn the spread
    set_scales(1e-3 * float(tensor.std() / gguf.quants.dequantize(blocks, quant).std()))
    return blocks.reshape(tensor.shape[0], -1)
