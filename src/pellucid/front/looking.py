"""What a request looks at and what it changes on its way through the model: `capture=` and `interventions=`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError

if TYPE_CHECKING:
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.glass.store import CaptureWatch
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.types import Watch


@dataclass(frozen=True)
class Looking:
    """Of one request. Neither is there: nothing is watched."""

    capture: Capture | None
    interventions: tuple[Intervention, ...]

    def overrides(self, params: SamplingParams | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that replace those of params, with the tokens that interventions force beside those of `force_at`.
        UsageError: two for one step."""
        from pellucid.glass.intervene import ForceToken

        forced = [each for each in self.interventions if isinstance(each, ForceToken)]
        also = given.get("force_at", () if params is None else params.force_at)
        try:
            force_at = dict(also or ())
        except (TypeError, ValueError):  # to be refused with the other parameters
            return dict(given)
        for each in forced:
            if (first := force_at.setdefault(each.step, each.token_id)) != each.token_id:
                raise UsageError(
                    f"interventions: expected one token for step {each.step}, got {first} and {each.token_id}"
                )
        return {**given, "force_at": force_at} if forced else dict(given)

    def begin(self, llm: LLM, num_prompt: int, params: SamplingParams | None) -> Watched:
        """Everything checked against this model, prompt and parameters (None: nothing is generated). UsageError."""
        from pellucid.fingerprint import of_model
        from pellucid.glass.apply import InterventionWatch, Together
        from pellucid.glass.store import CaptureWatch

        if params is not None and params.overflow == "slide":
            self._check_slide()
        changes = InterventionWatch(self.interventions, llm.model, num_prompt)
        store = None
        if self.capture is not None:
            self.capture.check_fits(llm, num_prompt, None if params is None else params.max_tokens)
            store = CaptureWatch(self.capture, llm.model, num_prompt, of_model(llm))
            store.keep_forks = params is not None
        key = changes.key if changes.changes else None
        if key is None:
            return Watched(store, store, None)
        return Watched(Together(changes, store) if store is not None else changes, store, key)

    def check_text(self, num_tokens: int) -> None:
        """UsageError: something in it never comes into effect where these tokens are computed and none generated."""
        from pellucid.glass.intervene import ForceToken
        from pellucid.glass.reach import check_kept, check_reached

        if any(isinstance(each, ForceToken) for each in self.interventions):
            raise UsageError(
                "interventions: ForceToken acts where tokens are chosen, and here none is; leave it out, or generate"
            )
        check_reached(self.interventions, num_tokens, num_tokens, "the text")
        if self.capture is not None:
            check_kept(self.capture.span(num_tokens), num_tokens, "the text")

    def _check_slide(self) -> None:
        if self.capture is not None:
            raise UsageError(
                'capture: a context that slides moves its tokens; give overflow="stop" or "error"'
            )
        if any(getattr(each, "steps", None) is not None for each in self.interventions):
            raise UsageError('steps: a context that slides moves its tokens; give overflow="stop" or "error"')


@dataclass(frozen=True)
class Watched:
    """watch: for the engine. store: what of it captures. key: of the interventions; sequences share keys and values
    with those of an equal key alone."""

    watch: Watch | None
    store: CaptureWatch | None
    key: bytes | None

    def salt(self, cache_salt: str | None) -> Hashable:
        return cache_salt if self.key is None else (cache_salt, self.key)


def check_reach(
    looking: Looking | None, num_prompt: int, params: SamplingParams, context_length: int | None
) -> None:
    """UsageError: an intervention, a capture or a forced token of a request lies beyond the longest text that it can
    become. context_length: None: the parameters do not tell how long that is."""
    if looking is None and not params.force_at:
        return
    from pellucid.glass.apply import END
    from pellucid.glass.reach import check_forced, check_kept, check_reached

    if context_length is None:
        if looking is not None:
            check_reached(looking.interventions, num_prompt, END, "it")
        return
    # The last token is never computed: it has no row.
    longest = context_length if params.max_tokens is None else num_prompt + params.max_tokens - 1
    check_forced(params.force_at, params.max_tokens or context_length - num_prompt)
    if looking is not None:
        where = "the prompt with max_tokens" if longest < context_length else "the context"
        check_reached(looking.interventions, num_prompt, min(longest, context_length), where)
        if looking.capture is not None:
            check_kept(looking.capture.span(num_prompt), min(longest, context_length), where)


def looking_of(capture: Any, interventions: Any, count: int) -> list[Looking | None]:
    """For each of `count` prompts. capture: None, a Capture for all, or a list of as many (with None for none).
    UsageError: neither; or several would write into one folder."""
    if capture is None and not interventions:
        return [None] * count
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import check_interventions

    checked = check_interventions(interventions if interventions is not None else ())
    captures = list(capture) if isinstance(capture, list | tuple) else [capture] * count
    if len(captures) != count:
        raise UsageError(
            f"capture: expected one Capture, or {count} (one for each prompt), got {len(captures)}"
        )
    for each in captures:
        if each is not None and not isinstance(each, Capture):
            raise UsageError(f"capture: expected a Capture, got {type(each).__name__}")
    folders = [each.to for each in captures if each is not None and each.to is not None]
    if len(set(folders)) != len(folders):
        raise UsageError(
            "capture: each prompt needs a folder of its own; give a list of Captures, one for each prompt"
        )
    return [Looking(each, checked) if each is not None or checked else None for each in captures]
