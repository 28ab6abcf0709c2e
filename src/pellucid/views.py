"""The part of the front door through which a model is looked into: activations, and what can be read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from pellucid.errors import UsageError
from pellucid.looking import Looking, looking_of
from pellucid.prompts import check_salt, split_prompts

if TYPE_CHECKING:
    from pellucid.engine.held import Rows
    from pellucid.glass.captured import Captured
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.llm import LLM


class Views:
    """Inherited by `LLM`, and by nothing else."""

    def trace(
        self,
        prompt: str | Sequence[int],
        capture: Capture | None = None,
        *,
        interventions: Sequence[Intervention] = (),
        parse_special: bool = False,
        cache_salt: str | None = None,
    ) -> Captured:
        """One forward pass over a text or token ids, with what flows through it kept (None: `Capture()`, the residual
        stream after every layer). Nothing is generated; every position is computed, the last too.

        Errors: UsageError, ContextOverflowError, CaptureError (the budget), CaptureFileError (capture.to).
        """
        from pellucid.glass.flow import Capture

        ids = self._given_ids(prompt, parse_special)
        (look,) = looking_of(Capture() if capture is None else capture, interventions, 1)
        return cast("Captured", self._run(ids, look, check_salt(cache_salt), None))

    def _given_ids(self, prompt: str | Sequence[int], parse_special: bool = False) -> list[int]:
        """The ids of one prompt, checked. UsageError, ContextOverflowError."""
        llm = cast("LLM", self)
        prompts, several = split_prompts(prompt)
        if several:
            raise UsageError("expected one text or one list of token ids, got a list of several")
        given = prompts[0]
        ids = llm.tokenizer.encode(given, parse_special=parse_special) if isinstance(given, str) else given
        llm._check(ids, llm._need(), None)
        return ids

    def _run(
        self,
        ids: Sequence[int],
        look: Looking | None,
        salt: str | None,
        on_rows: Rows | None,
        first: int | None = None,
    ) -> Captured | None:
        """Computes these tokens under what looks at them, and gives what it has kept. on_rows: takes the logits of the
        positions from `first` on (None: of the last)."""
        llm = cast("LLM", self)
        watched = None if look is None else look.begin(llm, len(ids), None)
        driver = llm._open_driver()
        held = driver.hold(
            ids,
            salt=salt if watched is None else watched.salt(salt),
            watch=None if watched is None else watched.watch,
        )
        try:
            held.first_logit = first

            def ignore(*_: Any) -> None:
                pass

            driver.evaluate([held], ignore if on_rows is None else on_rows)
        finally:
            held.close()
        return None if watched is None or watched.store is None else watched.store.captured(ids)
