"""`LLM.generate_json`: an object in place of a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pellucid.errors import PellucidError, UsageError
from pellucid.prompts import is_messages, split_prompts

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams


class IncompleteJSONError(PellucidError):
    """The JSON did not end: `text` is what there was of it, `finish_reason` why it stopped."""

    def __init__(self, text: str, finish_reason: str | None) -> None:
        why = {
            "length": "max_tokens was reached",
            "context": "the context is full",
            "deadline": "time was up",
        }
        reason = why.get(str(finish_reason), f"finish reason {finish_reason!r}")
        super().__init__(
            f"the JSON is not complete after {len(text)} characters: {reason}; "
            f"allow more, or read .text ({text[:60]!r})"
        )
        self.text = text
        self.finish_reason = finish_reason


def generate_json(
    llm: LLM,
    prompt: str | Sequence[int] | Sequence[Mapping[str, Any]],
    schema: Any,
    params: SamplingParams | None,
    overrides: Mapping[str, Any],
) -> Any:
    """`LLM.generate_json`."""
    for name in ("json_schema", "n"):
        if name in overrides:
            raise UsageError(f"{name} is not for generate_json; use generate(json_schema=...)")
    if schema is None:
        raise UsageError(
            "generate_json: expected a JSON Schema or a Pydantic model, got None; {} allows any JSON"
        )
    given = {**overrides, "json_schema": schema, "n": 1}
    if is_messages(prompt):
        result = llm.chat(prompt, params, **given)  # type: ignore[arg-type]
    else:
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError("generate_json takes one prompt; for several, use generate(json_schema=...)")
        result = llm.generate(prompts[0], params, **given)
    if result.finish_reason != "eos":
        raise IncompleteJSONError(result.text, result.finish_reason)
    validate = getattr(schema, "model_validate_json", None)
    if isinstance(schema, type) and validate is not None:
        return validate(result.text)
    return json.loads(result.text)
