"""open_checkpoint: one protocol over GGUF (also in parts), safetensors (also sharded) and directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy

from pellucid.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from pellucid.weights.checkpoint import open_checkpoint
from pellucid.weights.gguf import GGUFFile

CONFIG = {"model_type": "llama", "hidden_size": 4}


def array(value: float) -> np.ndarray:
    return np.full((2, 4), value, np.float32)


def hub(folder: Path, config: Any = CONFIG, **files: Any) -> Path:
    """A directory with config.json; `files`: more JSON by file name without .json."""
    folder.mkdir(exist_ok=True)
    for name, value in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def save(path: Path, **values: float) -> Path:
    safetensors.numpy.save_file({name: array(value) for name, value in values.items()}, path)
    return path


def save_gguf(path: Path, tensors: dict[str, float], architecture: str = "llama", **metadata: Any) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in metadata.items():
        name = name.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    for name, value in tensors.items():
        writer.add_tensor(name, array(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path: Path, kind: type[Exception] = ModelFileError) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_directory_with_one_file(tmp_path: Path) -> None:
    folder = hub(tmp_path, generation_config={"temperature": 0.6, "eos_token_id": [1, 2]})
    save(folder / "model.safetensors", a=1, b=2)
    for path in (folder, folder / "model.safetensors"):
        found = open_checkpoint(path)
        assert (found.path, found.container, found.architecture) == (str(path), "safetensors", "llama")
        assert found.config == CONFIG and found.gguf is None
        assert found.generation_defaults == {"temperature": 0.6, "eos_token_id": [1, 2]}
        assert sorted(found.tensor_names) == ["a", "b"] and "a" in found and "c" not in found
        assert (found.tensor("b", (2, 4)).dequantize() == 2).all()
        assert {file.name for file in found.files} == {
            "model.safetensors",
            "config.json",
            "generation_config.json",
        }


def test_absent_or_wrong_tensor(tmp_path: Path) -> None:
    save(hub(tmp_path) / "model.safetensors", a=1)
    found = open_checkpoint(tmp_path)
    with pytest.raises(
        ModelFileError, match="tensor 'lm_head': expected it, but it is not among the 1 tensors"
    ):
        found.tensor("lm_head")
    with pytest.raises(ModelFileError, match=r"tensor 'a': expected the shape \[4, 2\], found \[2, 4\]"):
        found.tensor("a", (4, 2))


def sharded(folder: Path, weight_map: Any = None) -> Path:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": names if weight_map is None else weight_map}
    hub(folder, **{"model.safetensors.index": index})
    save(folder / names["a"], a=1)
    save(folder / names["b"], b=2)
    return folder


def test_shards(tmp_path: Path) -> None:
    found = open_checkpoint(sharded(tmp_path))
    assert (found.tensor("a").dequantize() == 1).all() and (found.tensor("b").dequantize() == 2).all()
    assert len(found.files) == 4
    assert "is one part of a model; open its directory" in refusal(
        tmp_path / "model-00001-of-00002.safetensors"
    )


def test_shards_may_be_links(tmp_path: Path) -> None:
    """The Hub's cache keeps the content elsewhere and links to it."""
    sharded(tmp_path / "m")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for file in (tmp_path / "m").glob("*"):
        file.rename(blobs / file.name)
        file.symlink_to(Path("../blobs") / file.name)
    assert (open_checkpoint(tmp_path / "m").tensor("b").dequantize() == 2).all()


ONE = "model-00001-of-00002.safetensors"
BAD_MAPS: dict[str, tuple[Any, str]] = {
    "empty": ({}, "weight_map: expected an object"),
    "list": ([ONE], "weight_map: expected an object"),
    "number": (
        {"a": 1},
        "weight_map 'a': expected the name of a .safetensors file beside the index, found int",
    ),
    "upwards": ({"a": "../x.safetensors"}, "expected the name of a .safetensors file beside the index"),
    "absolute": ({"a": "/x.safetensors"}, "expected the name of"),
    "subfolder": ({"a": "sub/x.safetensors"}, "expected the name of"),
    "backslash": ({"a": "..\\x.safetensors"}, "expected the name of"),
    "NUL": ({"a": "\0.safetensors"}, "expected the name of"),
    "pickle": ({"a": "model.bin"}, "expected the name of"),
    "missing": ({"a": "other.safetensors"}, "names the file 'other.safetensors', which is missing"),
    "name too long": ({"a": "x" * 400 + ".safetensors"}, "which is missing"),
    "surrogate": ({"a": "\ud800.safetensors"}, "which is missing"),
    "not in the shard": ({"b": ONE}, f"weight_map 'b': is not in '{ONE}'"),
}


@pytest.mark.parametrize("name", BAD_MAPS)
def test_bad_index(tmp_path: Path, name: str) -> None:
    weight_map, expected = BAD_MAPS[name]
    assert expected in refusal(sharded(tmp_path, weight_map))


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        ({"model_type": "mistral"}, "llama"),
        ({"model_type": "qwen2"}, "qwen2"),
        ({"model_type": "qwen3"}, "qwen3"),
        ({"model_type": "gemma3_text"}, "gemma3"),
        ({"model_type": "gemma3"}, "gemma3"),
        ({"model_type": "gpt2"}, "gpt2"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "qwen3"),
    ],
)
def test_architecture(tmp_path: Path, config: Any, architecture: str) -> None:
    save(hub(tmp_path, config) / "model.safetensors", a=1)
    assert open_checkpoint(tmp_path).architecture == architecture


def test_unknown_architecture_lists_the_known(tmp_path: Path) -> None:
    save(hub(tmp_path, {"model_type": "mamba"}) / "model.safetensors", a=1)
    line = refusal(tmp_path, UnsupportedModelError)
    assert "model_type: 'mamba' is not supported" in line and "gemma3" in line and "qwen2" in line
    path = save_gguf(tmp_path / "m.gguf", {"a": 1}, architecture="mamba")
    assert "general.architecture: 'mamba' is not supported" in refusal(path, UnsupportedModelError)


BAD_CONFIGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "JSON at byte 0: Expecting value"),
    "list": (b"[]", "JSON: expected an object, found list"),
    "unfinished": (b'{"model_type": "llama"', "JSON at byte 22"),
    "twice": (b'{"model_type": "llama", "model_type": "gpt2"}', "JSON key 'model_type': is there twice"),
    "NaN": (b'{"model_type": "llama", "x": NaN}', "NaN is no JSON value"),
    "not UTF-8": (b'{"model_type": "\xff"}', "JSON at byte 16: expected UTF-8 text"),
    "deep": (b"[" * 100_000, "is nested too deep"),
    "digits": (b'{"x": ' + b"1" * 10_000 + b"}", "JSON: Exceeds the limit"),
    "neither": (b"{}", "model_type: expected it, or one class in `architectures`"),
    "two classes": (
        b'{"architectures": ["LlamaForCausalLM", "GPT2LMHeadModel"]}',
        "model_type: expected it, or one",
    ),
    "number": (b'{"model_type": 3}', "model_type: expected a string, found int"),
    "huge": (b" " * (5 << 20), "file: expected at most"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_config(tmp_path: Path, name: str) -> None:
    content, expected = BAD_CONFIGS[name]
    save(tmp_path / "model.safetensors", a=1)
    (tmp_path / "config.json").write_bytes(content)
    line = refusal(tmp_path)
    assert "config.json" in line and expected in line


def test_what_is_missing(tmp_path: Path) -> None:
    assert "expected a file, found nothing" in refusal(tmp_path / "absent", ModelNotFoundError)
    assert "found none" in refusal(hub(tmp_path / "empty"), ModelNotFoundError)
    assert "config.json: file: is missing" in refusal(save(tmp_path / "alone.safetensors", a=1))
    assert "expected weights, found JSON" in refusal(tmp_path / "empty" / "config.json")


def test_directory_of_other_names(tmp_path: Path) -> None:
    save(hub(tmp_path) / "weights.safetensors", a=1)
    assert open_checkpoint(tmp_path).tensor_names == ["a"]
    save(tmp_path / "more.safetensors", a=1)
    assert "holds 2 models, name one of them: 'more.safetensors', 'weights.safetensors'" in refusal(tmp_path)


def test_gguf(tmp_path: Path) -> None:
    metadata = {
        "llama__block_count": 2,
        "tokenizer__ggml__tokens": ["a", "b"],
        "tokenizer__ggml__token_type": [1, 1],
    }
    sampling = {"general__sampling__temp": 0.5, "general__sampling__top_k": 40}
    path = save_gguf(tmp_path / "m.gguf", {"a": 1}, **metadata, **sampling)
    for given in (path, tmp_path):
        found = open_checkpoint(given)
        assert (found.container, found.architecture, found.files) == ("gguf", "llama", [path])
        assert found.config["llama.block_count"] == 2 and found.config[
            "tokenizer.ggml.token_type"
        ].tolist() == [1, 1]
        assert "tokenizer.ggml.tokens" not in found.config and found.gguf is not None
        assert list(found.gguf.metadata["tokenizer.ggml.tokens"]) == [b"a", b"b"]
        assert found.generation_defaults == {"temperature": 0.5, "top_k": 40}
        assert (found.tensor("a", (2, 4)).dequantize() == 1).all()


def test_gguf_that_is_no_model(tmp_path: Path) -> None:
    path = save_gguf(tmp_path / "m.gguf", {"a": 1}, general__type="adapter")
    assert "general.type: expected a model, found 'adapter'" in refusal(path, UnsupportedModelError)


def split(folder: Path, *, second: str = "b") -> Path:
    """A model in two parts, as the gguf package writes them."""
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    writer.add_tensor("a", array(1))
    writer.add_tensor(second, array(2))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m-00001-of-00002.gguf"


def test_gguf_in_parts(tmp_path: Path) -> None:
    first = split(tmp_path)
    for given in (first, tmp_path):
        found = open_checkpoint(given)
        assert found.tensor_names == ["a", "b"] and len(found.files) == 2
        assert (found.tensor("b").dequantize() == 2).all()
    second = tmp_path / "m-00002-of-00002.gguf"
    assert "general.architecture" in refusal(second) or "open the first file" in refusal(second)
    content = second.read_bytes()
    second.write_bytes(first.read_bytes())
    assert "split.no: expected part 1 of 2" in refusal(first)
    second.write_bytes(content)
    renamed = first.rename(tmp_path / "other.gguf")
    assert "is one part of 2; open the first file" in refusal(renamed)
    renamed.rename(first)
    second.unlink()
    assert "part 2 of 2 is missing" in refusal(first)


def test_release_gives_memory_back(tmp_path: Path) -> None:
    """The pages that reading a tensor brought in leave this process; its values can still be read."""

    def resident_bytes() -> int:
        """Of all maps of the file; Linux only."""
        total, inside = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                inside = line.endswith(str(path))
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
        return total

    if not Path("/proc/self/smaps").exists():
        pytest.skip("needs /proc/self/smaps")
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("big", np.ones((2048, 2048), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = GGUFFile(path).tensors["big"]
    assert (tensor.dequantize() == 1).all()
    assert resident_bytes() > 15 << 20
    tensor.rows(0, 1024).release()
    assert 4 << 20 < resident_bytes() < 9 << 20  # half; a huge page that straddles the border goes as a whole
    tensor.release()
    assert resident_bytes() < 1 << 20
    assert (tensor.dequantize() == 1).all()
