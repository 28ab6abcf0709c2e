"""Settings and tensors as the files of published models have them, at a small size.

Each case says of itself that it changes nothing: the logits are those of the plain tiny model, to the bit.
What a case must not say is in test_settings.py: features that change the numbers are refused.
"""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoints import write_gguf, write_hub
from tiny_configs import variant
from tiny_tokenizers import write_tokenizer
from tiny_weights import random_weights

from pellucid import LLM, errors

IDS = np.random.default_rng(3).integers(0, 320, 40).tolist()


def logits(path):
    with LLM(path, num_threads=1, kv_format="f32") as llm:
        return llm.logits(IDS)


def unchanged(path, reference):
    np.testing.assert_array_equal(logits(path), logits(reference), strict=True)


# What the config.json of published models says besides sizes, by model.
COMMON = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.02,
    "use_cache": True,
    "pad_token_id": None,
}
CONFIGS = {
    "Llama-2-7b": ("llama-1", {"_name_or_path": "x", "pretraining_tp": 1, "rope_scaling": None,
                               "torch_dtype": "float16", "transformers_version": "4.31.0.dev0"}),
    "TinyLlama-1.1B-Chat-v1.0": ("llama-1", {"attention_bias": False, "rope_theta": 10000.0, "rope_scaling": None,
                                             "pretraining_tp": 1, "torch_dtype": "bfloat16"}),
    "Llama-3.2-1B-Instruct": ("llama", {"eos_token_id": [1, 5, 7], "mlp_bias": False, "attention_dropout": 0.0,
                                        "pretraining_tp": 1, "torch_dtype": "bfloat16"}),
    "Mistral-7B-Instruct-v0.3": ("mistral-no-window", {"attention_dropout": 0.0, "head_dim": 16,
                                                       "sliding_window": None}),
    "Mistral, transformers 5": ("mistral", {"layer_types": ["sliding_attention"] * 3, "dtype": "bfloat16"}),
    "Llama, head_dim null": ("llama-1", {"head_dim": None, "layer_types": None, "sliding_window": None}),
    "SmolLM2-1.7B-Instruct": ("llama", {"is_llama_config": True, "rope_interleaved": False, "mlp_bias": False,
                                        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}),
    "Qwen2.5-0.5B-Instruct": ("qwen2", {"attention_dropout": 0.0, "max_window_layers": 21, "sliding_window": 32768,
                                        "use_mrope": False, "rope_scaling": None}),
    "Qwen2.5, transformers 5": ("qwen2", {"dtype": "bfloat16", "layer_types": ["full_attention"] * 3,
                                          "sliding_window": None, "rope_theta": ...,
                                          "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}}),
    "Qwen3-0.6B": ("qwen3", {"attention_dropout": 0.0, "max_window_layers": 28}),
    "Gemma-3-1b-it": ("gemma3", {"attention_dropout": 0.0, "attn_logit_softcapping": None,
                                 "cache_implementation": "hybrid", "eos_token_id": [1, 106],
                                 "final_logit_softcapping": None}),
    "Gemma-3-270m": ("gemma3", {"_sliding_window_pattern": 3, "use_bidirectional_attention": False, "dtype": "bfloat16",
                                "layer_types": ["sliding_attention", "sliding_attention", "full_attention",
                                                "sliding_attention"]}),
    "gpt2": ("gpt2", {"attn_pdrop": 0.1, "embd_pdrop": 0.1, "n_ctx": 512, "resid_pdrop": 0.1,
                      "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
                      "summary_type": "cls_index",
                      "summary_use_proj": True, "reorder_and_upcast_attn": False, "tie_word_embeddings": ...,
                      "n_inner": ..., "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True,
                      "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}}),
}  # fmt: skip


@pytest.mark.parametrize("model", CONFIGS)
def test_config_json(tmp_path, model):
    name, said = CONFIGS[model]
    config = variant(name)
    weights = random_weights(config)
    reference = write_hub(tmp_path / "reference", config, weights)
    folder = write_hub(tmp_path / "model", config, weights)
    full = {key: value for key, value in {**COMMON, **config, **said}.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(full))
    unchanged(folder, reference)


def renamed(weights, old, new):
    return {name.replace(old, new, 1): tensor for name, tensor in weights.items()}


# Published safetensors hold more, or name it otherwise: variant, (the weights) -> the file's tensors.
TENSORS = {
    "rotation tables": ("llama-1", lambda w: w | {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(3)}),
    "a head equal to the embedding": ("llama", lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"]}),
    "GPT-2 without prefix, with masks": ("gpt2", lambda w: renamed(w, "transformer.", "") | {
        "h.0.attn.bias": np.tril(np.ones((1, 1, 512, 512), np.float32)),
        "h.0.attn.masked_bias": np.full((), -1e4, np.float32)}),
    "GPT-2 with boolean masks": ("gpt2", lambda w: w | {
        f"transformer.h.{i}.attn.bias": np.tril(np.ones((1, 1, 512, 512), bool)) for i in range(3)}),
    "Gemma with a picture tower": ("gemma3", lambda w: renamed(w, "model.", "language_model.model.") | {
        "vision_tower.vision_model.embeddings.patch_embedding.bias": np.ones(4, np.float32),
        "multi_modal_projector.mm_soft_emb_norm.weight": np.ones(4, np.float32)}),
    "Gemma with a picture tower, transformers 5": ("gemma3", lambda w: renamed(w, "model.", "model.language_model.") | {
        "model.vision_tower.vision_model.embeddings.patch_embedding.bias": np.ones(4, np.float32),
        "model.multi_modal_projector.mm_soft_emb_norm.weight": np.ones(4, np.float32)}),
    "Gemma with a picture tower and its head": (
        "gemma3", lambda w: renamed(w, "model.", "language_model.model.") | {
            "language_model.lm_head.weight": w["model.embed_tokens.weight"]}),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_of_safetensors(tmp_path, case):
    name, change = TENSORS[case]
    config = variant(name)
    weights = random_weights(config)
    reference = write_hub(tmp_path / "reference", config, weights)
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(change(weights), str(folder / "model.safetensors"))
    if "picture tower" in case:
        text = config | {"model_type": "gemma3_text"}
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
                  "mm_tokens_per_image": 256, "vision_config": {"hidden_size": 4}, "text_config": text,
                  "eos_token_id": [1, 106], "image_token_index": 262144}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
    else:
        (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, 320)
    unchanged(folder, reference)


def test_a_head_that_differs_though_tied(tmp_path):
    """transformers 4 drops it and 5 keeps it: refused, with what to do."""
    config = variant("llama")
    weights = random_weights(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + np.float32(1)
    folder = write_hub(tmp_path, config, weights)
    with pytest.raises(errors.ModelFileError, match="tie_word_embeddings to false"):
        LLM(folder)
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert np.isfinite(logits(folder)).all()


def test_more_embeddings_than_the_tokenizer_has(tmp_path):
    """Qwen pads its table: ids without a token are numbers like others, and decode to nothing or a mark."""
    config = variant("qwen2") | {"vocab_size": 384}
    folder = write_hub(tmp_path, config | {"vocab_size": 320}, random_weights(config))
    (folder / "config.json").write_text(json.dumps(config))
    with LLM(folder, num_threads=1) as llm:
        assert llm.logits([3, 383]).shape == (2, 384)
        result = llm.generate([5, 383, 350], max_tokens=3, logit_bias={370: 1e3})
        assert 370 in result.token_ids or result.finish_reason == "eos"
        assert isinstance(result.text, str)


# --- GGUF -------------------------------------------------------------------------------------------------
GENERAL = {
    "general.name": "x", "general.basename": "x", "general.size_label": "1B", "general.license": "mit",
    "general.file_type": 15, "general.quantization_version": 2, "general.base_model.count": 1,
    "general.tags": ["text-generation"], "general.languages": ["en"], "general.source.url": "x",
    "quantize.imatrix.file": "x", "quantize.imatrix.dataset": "x", "quantize.imatrix.entries_count": 1,
    "quantize.imatrix.chunks_count": 128, "tokenizer.ggml.padding_token_id": 0, "split.no": 0, "split.count": 0,
    "split.tensors.count": 0,
}  # fmt: skip
GGUFS = {
    "llama-1": {"llama.tensor_data_layout": "Meta AI original pth", "llama.rope.scale_linear": 1.0,
                "llama.rope.freq_base": 10000.0, "llama.expert_count": 0, "llama.expert_used_count": 0},
    "llama": {"llama.rope.scaling.type": "none", "llama.attention.causal": True, "llama.rope.scaling.attn_factor": 1.0,
              "llama.rope.scaling.finetuned": False, "llama.attention.head_count_kv": [2, 2, 2],
              "llama.feed_forward_length": [160, 160, 160]},
    "mistral-no-window": {"llama.attention.sliding_window": 0, "llama.rope.scaling.factor": 0.0},
    "qwen2": {"qwen2.pooling_type": 1, "qwen2.rope.scaling.yarn_beta_fast": 32.0, "qwen2.rope.dimension_count": 32},
    "qwen3": {"qwen3.attention.key_length": 64, "qwen3.attention.value_length": 64},
    "gemma3": {"gemma3.attn_logit_softcapping": 0.0, "gemma3.final_logit_softcapping": 0.0,
               "gemma3.rope.freq_base_swa": 10000.0, "gemma3.mm.tokens_per_image": 256},
    "gpt2": {"gpt2.attention.head_count_kv": 3, "gpt2.vocab_size": 320},
}  # fmt: skip


def add(path, out, said, tensors=(), *, copy=True):
    """A copy of a GGUF file that says more, or otherwise, and holds more tensors (or others)."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(str(out), reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture" or key in said:
            continue
        kind = field.types[0]
        more = {"sub_type": field.types[-1]} if kind == gguf.GGUFValueType.ARRAY else {}
        writer.add_key_value(key, field.contents(), kind, **more)
    for key, value in said.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            kinds = {
                bool: writer.add_bool,
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
            }
            kinds[type(value)](key, value)
    for tensor in reader.tensors if copy else ():
        writer.add_tensor(tensor.name, tensor.data)
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return out


@pytest.mark.parametrize("name", GGUFS)
def test_metadata_of_gguf(tmp_path, name):
    config = variant(name)
    reference = write_gguf(tmp_path / "reference.gguf", config, random_weights(config))
    unchanged(add(reference, tmp_path / "model.gguf", GENERAL | GGUFS[name]), reference)


def test_a_copied_embedding_and_rotation_tables_in_gguf(tmp_path):
    config = variant("llama")
    reference = write_gguf(tmp_path / "reference.gguf", config, random_weights(config))
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(reference).tensors}
    more = [
        ("output.weight", tensors["token_embd.weight"]),
        ("blk.0.attn_rot_embd.weight", np.ones(8, np.float32)),
    ]
    unchanged(add(reference, tmp_path / "model.gguf", {}, more), reference)


@pytest.mark.parametrize("name", ["llama-biases", "qwen2", "qwen3", "gemma3"])
def test_fused_projections_in_gguf(tmp_path, name):
    """`--fuse-qkv` of llama.cpp's converter: query, key and value one after the other."""
    config = variant(name)
    reference = write_gguf(tmp_path / "reference.gguf", config, random_weights(config))
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(reference).tensors}
    for layer, part in [(n.split(".")[1], n.split(".")[-1]) for n in tensors if ".attn_q." in n]:
        parts = [tensors.pop(f"blk.{layer}.attn_{noun}.{part}") for noun in "qkv"]
        tensors[f"blk.{layer}.attn_qkv.{part}"] = np.concatenate(parts)
    unchanged(add(reference, tmp_path / "model.gguf", {}, tensors.items(), copy=False), reference)


def test_gemma_without_a_window_in_gguf(tmp_path):
    """Without the key no layer has one, and all rotate with the global base, as llama.cpp has it."""
    config = variant("gemma3-period") | {"sliding_window": 64}
    weights = random_weights(config)
    reference = write_gguf(tmp_path / "reference.gguf", config, weights)
    assert len(IDS) < 64
    swa = {"gemma3.attention.sliding_window": 0}
    wide = add(reference, tmp_path / "wide.gguf", {"gemma3.rope.freq_base_swa": float(config["rope_theta"])})
    unchanged(add(reference, tmp_path / "none.gguf", swa), wide)
