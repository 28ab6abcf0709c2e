"""What lies beside a tokenizer.json in a Hub-style folder: named tokens, BOS rules, the chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.errors import ModelFileError

MAX_BYTES = 64 << 20
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class HubConfig:
    """named_tokens: "bos_token" and so on -> piece. adds_bos, adds_eos: None where nothing is said.
    model_vocabulary_size: of config.json, which may have more rows than the tokenizer has tokens."""

    named_tokens: dict[str, str] = field(default_factory=dict)
    adds_bos: bool | None = None
    adds_eos: bool | None = None
    chat_template: str | None = None
    model_vocabulary_size: int = 0


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelFileError(path, "file", f"expected at most {MAX_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(path, "JSON", f"cannot be read: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise ModelFileError(path, "JSON", f"expected an object, found {type(value).__name__}")
    return value


def read_hub_config(folder: Path) -> HubConfig:
    """tokenizer_config.json, special_tokens_map.json, chat_template.jinja, chat_template.json, config.json."""
    path = folder / "tokenizer_config.json"
    settings = read_object(path)
    others = read_object(folder / "special_tokens_map.json")
    model = read_object(folder / "config.json")
    sizes = [model.get("vocab_size"), _object(model.get("text_config")).get("vocab_size")]
    return HubConfig(
        named_tokens={
            name: piece
            for name in NAMES
            if (piece := _piece(settings.get(name)) or _piece(others.get(name))) is not None
        },
        adds_bos=_flag(path, settings, "add_bos_token"),
        adds_eos=_flag(path, settings, "add_eos_token"),
        chat_template=_chat_template(folder, settings),
        model_vocabulary_size=max([0, *(s for s in sizes if type(s) is int and s < 1 << 24)]),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _piece(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def _flag(path: Path, settings: dict[str, Any], key: str) -> bool | None:
    value = settings.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelFileError(path, key, f"expected true or false, found {type(value).__name__}")
    return value


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """A file of its own goes before tokenizer_config.json; of several named templates the default one."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ModelFileError(file, "file", f"expected at most {MAX_BYTES} bytes")
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(file, "text", f"cannot be read: {str(error)[:100]}") from None
    for value in (
        read_object(folder / "chat_template.json").get("chat_template"),
        settings.get("chat_template"),
    ):
        if isinstance(value, str):
            return value
        for entry in value if isinstance(value, list) else []:
            if (
                isinstance(entry, dict)
                and entry.get("name") == "default"
                and isinstance(entry.get("template"), str)
            ):
                return str(entry["template"])
    return None
