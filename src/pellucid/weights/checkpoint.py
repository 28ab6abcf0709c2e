"""A model as found on disk, whatever the container: GGUF (one file or parts), safetensors, or a directory."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError
from pellucid.weights.gguf import GGUFFile
from pellucid.weights.iq4_nl import LABEL as IQ4_NL
from pellucid.weights.iq4_nl import as_q8_0
from pellucid.weights.mapped import quoted, require_regular_file
from pellucid.weights.strings import StringArray
from pellucid.weights.tensor import Format, Tensor

if TYPE_CHECKING:  # imported where such a file is opened: a GGUF file needs none of it
    from pellucid.weights.safetensors import SafetensorsFile

    Sources = tuple[dict[str, GGUFFile | SafetensorsFile], list[Path]]

MAX_CONFIG_BYTES = 4 << 20
MAX_INDEX_BYTES = 32 << 20
INDEX = "model.safetensors.index.json"

# How files call the architectures that we have. GGUF: general.architecture; Hub: model_type, or the class.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
}
CLASSES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "GPT2LMHeadModel": "gpt2",
}
# Buffers that older classes saved with their weights, in any dtype: masks, and tables of rotations and
# positions. The settings say the same, so nobody reads them.
BUFFERS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq", "rotary_emb.cos_cached",
           "rotary_emb.sin_cached", "position_ids")  # fmt: skip
# general.sampling.* that have another name in generation_config.json; the others keep theirs.
SAMPLING_NAMES = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}


class Checkpoint:
    """An opened model; `models.base.Checkpoint` is its protocol.

    path: as it was given. container: "gguf" or "safetensors". architecture: ours, see ARCHITECTURES.
    config: config.json, or GGUF metadata without its string arrays. generation_defaults: sampling that the
    model's makers recommend, by the names of generation_config.json. files: every file that was read.
    gguf: the GGUF file that holds the metadata, tokenizer included; None for safetensors.
    """

    def __init__(
        self,
        path: Path,
        container: str,
        architecture: str,
        config: dict[str, Any],
        generation_defaults: dict[str, Any],
        sources: dict[str, GGUFFile | SafetensorsFile],
        files: list[Path],
        gguf: GGUFFile | None = None,
    ) -> None:
        self.path = str(path)
        self.container = container
        self.architecture = architecture
        self.config = config
        self.generation_defaults = generation_defaults
        self.files = files
        self.gguf = gguf
        self._sources = sources  # tensor name -> the file that holds it

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    @property
    def tensor_names(self) -> list[str]:
        return list(self._sources)

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor by its name in this container.

        ModelFileError if it is absent or not of `shape` (outermost first); UnsupportedModelError if its type
        is none of `Format`.
        """
        source = self._sources.get(name)
        if source is None:
            problem = f"expected it, but it is not among the {len(self._sources)} tensors of this model"
            raise ModelFileError(self.path, f"tensor {quoted(name)}", problem)
        tensor = _of_gguf(source, name) if isinstance(source, GGUFFile) else source.tensor(name)
        if shape is not None and tensor.shape != tuple(shape):
            problem = f"expected the shape {list(shape)}, found {list(tensor.shape)}"
            raise ModelFileError(source.path, f"tensor {quoted(name)}", problem)
        return tensor

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(source.source.size for source in set(self._sources.values()))

    def release(self) -> None:
        """Let all that was read of the files leave this process's memory; what is read again comes back."""
        for source in set(self._sources.values()):
            source.source.release(0, source.source.size)

    def stored(self, name: str) -> tuple[str, int, int]:
        """(format as the file has it, values, bytes) of a tensor. `tensor` gives the same format, except that
        IQ4_NL becomes Q8_0. UnsupportedModelError if its type is none that we read."""
        source = self._sources[name]
        if isinstance(source, GGUFFile) and name in source.iq4_nl:
            shape, data = source.iq4_nl[name]
            return IQ4_NL, math.prod(shape), len(data)
        tensor = self.tensor(name)
        return tensor.format.label, tensor.num_values, len(tensor.data)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a GGUF file, a safetensors file (config.json beside it), or a directory as the Hub lays it out.

    Only headers are read. ModelNotFoundError, ModelFileError or UnsupportedModelError, each with one line.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    require_regular_file(path)
    if path.name.endswith(".safetensors"):
        part = re.fullmatch(r"(.+)-\d{5}-of-\d{5}\.safetensors", path.name)
        if part and (path.parent / f"{part[1]}.safetensors.index.json").exists():
            problem = f"is one part of a model; open its directory instead: {path.parent}"
            raise ModelFileError(path, "file", problem)
        return _open_safetensors(path, path.parent, _single(path))
    if path.name.endswith(".json"):
        raise ModelFileError(path, "file", f"expected weights, found JSON; open its directory: {path.parent}")
    return _open_gguf(path)


def _open_directory(path: Path) -> Checkpoint:
    """model.safetensors, else the index of its parts, else the only safetensors or GGUF file in there."""
    if (path / "model.safetensors").exists():
        return _open_safetensors(path, path, _single(path / "model.safetensors"))
    if (path / INDEX).exists():
        return _open_safetensors(path, path, _sharded(path / INDEX))
    for pattern in ("*.safetensors", "*.gguf"):
        found = sorted(path.glob(pattern))
        first_parts = [file for file in found if (part := _split_part(file)) is None or part[1] == 1]
        if len(first_parts) == 1 and pattern == "*.gguf":
            return _open_gguf(first_parts[0])
        if len(found) == 1:
            return _open_safetensors(path, path, _single(found[0]))
        if found:
            names = ", ".join(quoted(file.name) for file in found[:8])
            raise ModelFileError(path, "directory", f"holds {len(found)} models, name one of them: {names}")
    raise ModelNotFoundError(f"{path}: expected model.safetensors, {INDEX} or a .gguf file in it, found none")


def _single(path: Path) -> Sources:
    from pellucid.weights.safetensors import SafetensorsFile

    source = SafetensorsFile(path)
    return {name: source for name in source.entries if not name.endswith(BUFFERS)}, [path]


def _sharded(index: Path) -> Sources:
    """The files that an index names, which must lie beside it, and every tensor that it promises."""
    from pellucid.weights.json_text import load_object
    from pellucid.weights.safetensors import SafetensorsFile

    weight_map = load_object(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(index, "weight_map", "expected an object of tensor name to file name")
    shards: dict[str, SafetensorsFile] = {}
    sources: dict[str, GGUFFile | SafetensorsFile] = {}
    for name, file in weight_map.items():
        field = f"weight_map {quoted(name)}"
        if not isinstance(file, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", file):
            found = quoted(file) if isinstance(file, str) else type(file).__name__
            problem = f"expected the name of a .safetensors file beside the index, found {found}"
            raise ModelFileError(index, field, problem)
        if file not in shards:
            if not os.path.exists(index.parent / file):  # False, too, for a name that no file can have
                problem = f"names the file {quoted(file)}, which is missing; fetch the whole model"
                raise ModelFileError(index, field, problem)
            shards[file] = SafetensorsFile(index.parent / file)
        if name not in shards[file].entries:
            raise ModelFileError(index, field, f"is not in {quoted(file)}, where the index has it")
        if not name.endswith(BUFFERS):
            sources[name] = shards[file]
    return sources, [index, *(shard.path for shard in shards.values())]


def _open_safetensors(path: Path, directory: Path, found: Sources) -> Checkpoint:
    from pellucid.weights.json_text import load_object

    sources, files = found
    config_path = directory / "config.json"
    if not config_path.exists():
        raise ModelFileError(config_path, "file", "is missing; expected the config.json beside the weights")
    config = load_object(config_path, MAX_CONFIG_BYTES)
    architecture = _hub_architecture(config_path, config)
    files.append(config_path)
    defaults: dict[str, Any] = {}
    generation_path = directory / "generation_config.json"
    if generation_path.exists():
        defaults = load_object(generation_path, MAX_CONFIG_BYTES)
        files.append(generation_path)
    return Checkpoint(path, "safetensors", architecture, config, defaults, sources, files)


def _hub_architecture(path: Path, config: dict[str, Any]) -> str:
    """By model_type; where that is absent, by the class in `architectures`."""
    model_type = config.get("model_type")
    if model_type is not None:
        if not isinstance(model_type, str):
            raise ModelFileError(path, "model_type", f"expected a string, found {type(model_type).__name__}")
        return _known(path, "model_type", model_type, ARCHITECTURES)
    classes = config.get("architectures")
    if not isinstance(classes, list) or len(classes) != 1 or not isinstance(classes[0], str):
        problem = "expected it, or one class in `architectures`; neither is there"
        raise ModelFileError(path, "model_type", problem)
    return _known(path, "architectures", classes[0], CLASSES)


def _known(path: Path, field: str, name: str, names: dict[str, str]) -> str:
    if name not in names:
        problem = f"{quoted(name)} is not supported; these are: {', '.join(sorted(names))}"
        raise UnsupportedModelError(path, field, problem)
    return names[name]


def _open_gguf(path: Path) -> Checkpoint:
    first = GGUFFile(path)
    metadata = first.metadata
    kind = metadata.get("general.type", "model")
    if kind not in ("model", "vocab"):
        shown = quoted(kind) if isinstance(kind, str) else type(kind).__name__
        raise UnsupportedModelError(path, "general.type", f"expected a model, found {shown}")
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        found = "nothing" if name is None else type(name).__name__
        raise ModelFileError(path, "general.architecture", f"expected a string, found {found}")
    architecture = _known(path, "general.architecture", name, ARCHITECTURES)
    parts = _gguf_parts(first)
    sources: dict[str, GGUFFile | SafetensorsFile] = {}
    for part in parts:
        part.require_supported()
        for tensor in (*part.tensors, *part.iq4_nl):
            if tensor in sources:
                raise ModelFileError(part.path, f"tensor {quoted(tensor)}", "is in two parts of the model")
            sources[tensor] = part
    config = {key: value for key, value in metadata.items() if not isinstance(value, StringArray)}
    prefix = "general.sampling."
    sampling = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
    defaults = {SAMPLING_NAMES.get(key, key): value for key, value in sampling.items()}
    files = [part.path for part in parts]
    return Checkpoint(path, "gguf", architecture, config, defaults, sources, files, gguf=first)


def _of_gguf(source: GGUFFile, name: str) -> Tensor:
    """A tensor of the file; IQ4_NL as the Q8_0 with the same values, in memory of its own."""
    if name not in source.iq4_nl:
        return source.tensors[name]
    shape, data = source.iq4_nl[name]
    return Tensor(name, shape, Format.Q8_0, as_q8_0(data))


def _split_part(path: Path) -> tuple[str, int, int] | None:
    """(prefix, number from 1, count) of a file name such as model-00002-of-00003.gguf."""
    match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", path.name)
    return (match[1], int(match[2]), int(match[3])) if match else None


def _gguf_parts(first: GGUFFile) -> list[GGUFFile]:
    """All files of a split model, in order; the first has the metadata, and all say how many they are."""
    count = first.metadata.get("split.count", 1)
    if count in (0, 1) and type(count) is int:
        return [first]
    named = _split_part(first.path)
    if type(count) is not int or named is None or named[2] != count or first.metadata.get("split.no") != 0:
        shown = count if type(count) is int else type(count).__name__
        problem = f"is one part of {shown}; open the first file, named ...-00001-of-NNNNN.gguf"
        raise ModelFileError(first.path, "split.count", problem)
    parts = [first]
    for number in range(2, count + 1):
        path = first.path.with_name(f"{named[0]}-{number:05d}-of-{count:05d}.gguf")
        if not path.exists():
            raise ModelFileError(path, "file", f"part {number} of {count} is missing; fetch the whole model")
        part = GGUFFile(path)
        told = part.metadata.get("split.no"), part.metadata.get("split.count")
        if told != (number - 1, count):
            found = f"{told[0]!a:.20} of {told[1]!a:.20}"
            problem = f"expected part {number - 1} of {count} (counted from 0), found {found}"
            raise ModelFileError(path, "split.no", problem)
        parts.append(part)
    num_tensors = sum(len(part.tensors) + len(part.unsupported) for part in parts)
    promised = first.metadata.get("split.tensors.count", num_tensors)
    if promised != num_tensors:
        problem = f"expected {promised!a:.20} tensors in {count} parts, found {num_tensors}"
        raise ModelFileError(first.path, "split.tensors.count", problem)
    return parts
