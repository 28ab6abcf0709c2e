"""Every effective setting and where it came from. Nothing is applied that is not listed here.

pellucid's own default is greedy decoding. The sampling values that a model's author recommends
(generation_config.json, or general.sampling.* in a GGUF file) are applied only when asked for, with
`model_defaults=True` or `--model-defaults`; the author's end-of-sequence ids are always applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT = "default"  # pellucid's own default
MODEL_FILE = "model file"
GENERATION_CONFIG = "generation_config"
CALLER = "caller"  # an argument in Python
COMMAND_LINE = "command line"
MACHINE = "this machine"  # derived from its CPUs or memory
DRAWN = "drawn at random"
# What a model's fingerprint says in files that were written before there was a choice.
BEFORE: Mapping[str, str] = {"activations": "f32"}
NO_EFFECT = "no effect: "  # how a note begins that says why a value changes nothing


_OPTIONS = {"context_length": "--context", "num_threads": "--threads", "prefill_chunk": "--chunk"}


def option_of(name: str) -> str:
    """What the command line calls a setting or a parameter."""
    return _OPTIONS.get(name) or "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value. `origin` is one of the constants above; `note` says how it was derived."""

    name: str
    value: Any
    origin: str
    note: str = ""


class Settings(Mapping[str, Setting]):
    """Effective settings by name, in the order in which they were added. `settings["top_k"].value`."""

    def __init__(self, settings: Iterable[Setting] = ()) -> None:
        self._settings = {setting.name: setting for setting in settings}

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def merged(self, other: Iterable[Setting]) -> Settings:
        """These settings, then those of `other`, which win over the same names here."""
        return Settings([*self._settings.values(), *other])

    def without_effect(self) -> dict[str, str]:
        """Those that the caller gave and that change nothing: name -> why."""
        asked = (CALLER, COMMAND_LINE)
        idle = [s for s in self._settings.values() if s.note.startswith(NO_EFFECT) and s.origin in asked]
        return {s.name: s.note.removeprefix(NO_EFFECT) for s in idle}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """{name: {"value", "origin", "note"?}}, ready for JSON."""
        return {s.name: _as_json(s) for s in self._settings.values()}

    def table(self) -> str:
        """Aligned lines "name  value  origin (note)"."""
        rows = [
            (s.name, show_value(s.value), s.origin + (f" ({s.note})" if s.note else ""))
            for s in self.values()
        ]
        if not rows:
            return ""
        names = max(len(name) for name, _, _ in rows)
        values = min(40, max(len(value) for _, value, _ in rows))
        return "\n".join(f"{name:<{names}}  {value:<{values}}  {origin}" for name, value, origin in rows)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        from html import escape

        cells = (
            f"<tr><td>{escape(s.name)}</td><td><code>{escape(show_value(s.value))}</code></td>"
            f"<td>{escape(s.origin)}</td><td>{escape(s.note)}</td></tr>"
            for s in self.values()
        )
        head = "<tr><th>setting</th><th>value</th><th>origin</th><th></th></tr>"
        return f"<table>{head}{''.join(cells)}</table>"


def show_value(value: Any) -> str:
    if isinstance(value, frozenset | set):
        value = sorted(value)
    return value if isinstance(value, str) else repr(value)


def _as_json(setting: Setting) -> dict[str, Any]:
    value = setting.value
    if isinstance(value, frozenset | set):
        value = sorted(value)
    out: dict[str, Any] = {"value": value, "origin": setting.origin}
    if setting.note:
        out["note"] = setting.note
    return out
