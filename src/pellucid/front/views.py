"""The part of the front door through which a model is looked into: activations, and what can be read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pellucid.errors import UsageError
from pellucid.front.looking import Looking, Watched, looking_of
from pellucid.prompts import check_count, check_salt, split_prompts
from pellucid.sampling.values import as_int
from pellucid.text.continuation import one_token

if TYPE_CHECKING:
    from pellucid.engine.held import Held, Rows
    from pellucid.front.comparing import Comparison
    from pellucid.glass.attribution import Attribution
    from pellucid.glass.captured import Captured
    from pellucid.glass.dependence import Dependence
    from pellucid.glass.flow import Capture
    from pellucid.glass.intervene import Intervention
    from pellucid.glass.lens import Lens
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.types import Float32, Int32, Watch


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
        look = _look(ids, Capture() if capture is None else capture, interventions)
        return cast("Captured", self._run(ids, look, check_salt(cache_salt), None))

    def lens(
        self,
        source: str | Sequence[int] | Captured,
        *,
        positions: Sequence[int] | None = None,
        tokens: int | Sequence[int] | None = None,
        k: int = 5,
        interventions: Sequence[Intervention] = (),
    ) -> Lens:
        """The logit lens: what each layer would predict if it were the last, and where the token that followed stands
        in it. The last column is the model's own distribution.

        source: a text, token ids, or what was captured of `resid_pre` (layer 0) and `resid_post` (all layers).
        positions: of the rows wanted; None: all that there are; negative numbers count from the end. tokens: the token
        looked for, one for all rows or one for each; None: the one that follows, after the last token the most
        probable one. k: alternatives of each layer. Errors: UsageError, ContextOverflowError, CaptureError.
        """
        from pellucid.fingerprint import of_model
        from pellucid.glass.captured import Captured
        from pellucid.glass.lens import lens_capture, make_lens, stream_of

        llm = cast("LLM", self)
        if isinstance(source, Captured):
            _check_alone(interventions)
            source.need_model("lens", of_model(llm))
            ids, captured = source.token_ids.tolist(), source
            wanted = _positions(positions, len(ids), captured.positions.tolist())
        else:
            ids = self._given_ids(source)
            wanted = _positions(positions, len(ids), list(range(len(ids))))
            span = min(wanted), max(wanted) + 1
            look = _look(ids, lens_capture(len(llm.model.layers), span), interventions)
            captured = cast("Captured", self._run(ids[: span[1]], look, None, None, num_prompt=len(ids)))
        rows = np.searchsorted(captured.positions, wanted)
        looked_for = _tokens(tokens, ids, wanted, llm.model.vocabulary_size)
        guard = llm._open_driver().exclusive
        at = np.array(wanted, np.int32)
        threads = int(llm.settings["num_threads"].value)
        stream = stream_of(captured)[rows]
        return make_lens(llm.model, stream, at, looked_for, check_count("k", k, 1), guard, threads)

    def attribution(
        self,
        prompt: str | Sequence[int],
        token: int | str | None = None,
        *,
        position: int = -1,
        against: int | None = None,
        heads: bool = True,
        interventions: Sequence[Intervention] = (),
    ) -> Attribution:
        """What each component wrote into the logit of a token after `position`: the embedding, each attention head (or
        with heads=False layer) and each MLP; together they are the logit.

        token: None: the most probable one. against: another token: the difference of the two logits is told.
        Errors: UsageError, ContextOverflowError.
        """
        from pellucid.glass.attribution import attribute, attribution_capture

        llm = cast("LLM", self)
        ids = self._given_ids(prompt)
        (at,) = _positions([position], len(ids), list(range(len(ids))))
        chosen, other = (
            None if each is None else one_token(llm.tokenizer, each) for each in (token, against)
        )
        row: list[Float32] = []

        def keep(_: Any, __: int, logits: Float32) -> None:
            row.append(logits[-1].copy())

        look = _look(ids, attribution_capture(len(llm.model.layers), at, heads), interventions)
        captured = cast("Captured", self._run(ids[: at + 1], look, None, keep, num_prompt=len(ids)))
        with llm._open_driver().exclusive():
            wanted = int(row[-1].argmax()) if chosen is None else chosen
            return attribute(llm.model, captured, wanted, other, row[-1], heads)

    def attention(
        self,
        source: str | Sequence[int] | Captured,
        layer: int,
        *,
        interventions: Sequence[Intervention] = (),
    ) -> Float32:
        """The attention weights of a layer, computed again from queries and keys: float32 [heads, queries, keys].

        source: a text, token ids, or what was captured of q and k at all positions. Errors: those of `trace`.
        """
        from pellucid.glass.attention import attention_capture, attention_weights
        from pellucid.glass.sites import site_layers

        llm = cast("LLM", self)
        (number,) = site_layers(llm.model, "q", (layer,))
        captured = self._captured_of(source, attention_capture((number,)), interventions)
        return attention_weights(llm.model, captured, number, str(llm.settings["kv_format"].value))

    def rollout(
        self, source: str | Sequence[int] | Captured, *, interventions: Sequence[Intervention] = ()
    ) -> Float32:
        """Attention rollout: how much of each position reaches each later one through all layers, float32
        [positions, positions]. Arguments and errors: those of `attention`."""
        from pellucid.glass.attention import attention_capture, rollout

        llm = cast("LLM", self)
        captured = self._captured_of(source, attention_capture(None), interventions)
        return rollout(llm.model, captured, str(llm.settings["kv_format"].value))

    def dependence(
        self,
        prompt: str | Sequence[int],
        token: int | str | None = None,
        *,
        method: str = "leave_one_out",
        interventions: Sequence[Intervention] = (),
    ) -> Dependence:
        """Which tokens of a text the next one depends on. token: None: the most probable next one.

        method: "leave_one_out": the text is run again without each token in turn, exactly; the value is how much
        log-probability the token loses by it. "attention": the rollout's row of the last position: cheap, and a hint.
        Errors: UsageError, ContextOverflowError.
        """
        from pellucid.glass.dependence import Dependence, leave_one_out

        ids = self._given_ids(prompt)
        if method not in ("leave_one_out", "attention"):
            raise UsageError(f'method: expected "leave_one_out" or "attention", got {method!r:.40}')
        tokenizer = cast("LLM", self).tokenizer
        chosen = None if token is None else one_token(tokenizer, token)
        if method == "attention":
            values = self.rollout(ids, interventions=interventions)[-1].astype(np.float64)
            return Dependence(np.array(ids, np.int32), chosen, None, method, values)

        _look(ids, None, interventions)

        def logits_of(several: list[list[int]]) -> list[Float32]:
            return self._last_rows(several, interventions)

        return leave_one_out(ids, chosen, logits_of)

    def ab(
        self,
        prompt: str | Sequence[int],
        interventions: Sequence[Intervention],
        params: SamplingParams | None = None,
        *,
        top: int = 5,
        parse_special: bool = False,
        **overrides: Any,
    ) -> Comparison:
        """A prompt continued without and with interventions, and along the tokens of the first what they change in
        each distribution, after the same tokens in both. Draws use the same noise. params, overrides, errors: those of
        `generate` (one sample)."""
        from pellucid.front.comparing import compare

        count = check_count("top", top, 1)
        return compare(
            cast("LLM", self),
            prompt,
            interventions,
            params,
            top=count,
            parse_special=parse_special,
            overrides=overrides,
        )

    def _changed_logits(self, ids: list[int], interventions: Sequence[Intervention]) -> Float32:
        """`LLM.logits` under interventions."""
        look = _look(ids, None, interventions)
        rows: Float32 = np.empty((len(ids), cast("LLM", self).model.vocabulary_size), np.float32)

        def take(_: Any, position: int, logits: Float32) -> None:
            rows[position : position + len(logits)] = logits

        self._run(ids, look, None, take, first=0)
        return rows

    def _row_under(self, changes: Watch, ids: list[int]) -> Float32:
        """The logits after the last token, with rows changed by a watch that is there already; nothing is shared."""
        driver = cast("LLM", self)._open_driver()
        held = driver.hold(ids, salt=object(), watch=changes)
        try:
            row: Float32 = driver.evaluate([held])[0][-1]
            return row
        finally:
            held.close()

    def _captured_of(
        self, source: str | Sequence[int] | Captured, capture: Capture, interventions: Sequence[Intervention]
    ) -> Captured:
        from pellucid.fingerprint import of_model
        from pellucid.glass.captured import Captured

        if isinstance(source, Captured):
            _check_alone(interventions)
            source.need_model("attention", of_model(cast("LLM", self)))
            return source
        return self.trace(source, capture, interventions=interventions)

    def _last_rows(self, several: list[list[int]], interventions: Sequence[Intervention]) -> list[Float32]:
        """The logits after the last token of each, computed in shared passes."""
        held: list[Held] = []
        try:
            for ids in several:
                (look,) = looking_of(None, interventions, 1)
                held.append(hold(cast("LLM", self), ids, look)[0])
            return [rows[-1] for rows in cast("LLM", self)._open_driver().evaluate(held)]
        finally:
            for each in held:
                each.close()

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
        num_prompt: int | None = None,
    ) -> Captured | None:
        """Computes these tokens under what looks at them, and gives what it has kept. on_rows: takes the logits of the
        positions from `first` on (None: of the last). num_prompt: from the end of which steps count; None: of all."""
        held, watched = hold(cast("LLM", self), ids, look, salt, num_prompt)
        try:
            held.first_logit = first

            def ignore(*_: Any) -> None:
                pass

            cast("LLM", self)._open_driver().evaluate([held], ignore if on_rows is None else on_rows)
        finally:
            held.close()
        return None if watched is None or watched.store is None else watched.store.captured(ids)


def hold(
    llm: LLM, ids: Sequence[int], look: Looking | None, salt: str | None = None, num_prompt: int | None = None
) -> tuple[Held, Watched | None]:
    """A sequence of these tokens under what looks at it. num_prompt: from whose end steps count; None: all of them."""
    watched = None if look is None else look.begin(llm, num_prompt or len(ids), None)
    if watched is None:
        return llm._open_driver().hold(ids, salt=salt), None
    return llm._open_driver().hold(ids, salt=watched.salt(salt), watch=watched.watch), watched


def _look(
    ids: Sequence[int], capture: Capture | None, interventions: Sequence[Intervention]
) -> Looking | None:
    """What looks at a text of which nothing is generated. UsageError: something in it would never come into effect."""
    (look,) = looking_of(capture, interventions, 1)
    if look is not None:
        look.check_text(len(ids))
    return look


def _check_alone(interventions: Sequence[Intervention]) -> None:
    """UsageError: there are some, and what they would change is captured already."""
    if interventions:
        raise UsageError("interventions: what was captured stands; give them to the trace that captures it")


def _positions(given: Sequence[int] | None, length: int, there: list[int]) -> list[int]:
    """Ascending, without repetition. UsageError: not among `there`."""
    if given is None:
        return there
    found, known = set(), set(there)
    for position in given:
        number = as_int(position)
        at = None if number is None else number + length if number < 0 else number
        if at not in known:
            raise UsageError(f"positions: expected some of {_span(there)}, got {position!r:.40}")
        found.add(int(at))
    if not found:
        raise UsageError("positions: expected at least one, or None for all")
    return sorted(found)


def _span(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if numbers else "none: nothing is captured"


def _tokens(
    given: int | Sequence[int] | None, ids: list[int], positions: list[int], vocabulary: int
) -> Int32:
    """The token looked for in each row; -1: the most probable of the last layer."""
    if given is None:
        return np.array([ids[p + 1] if p + 1 < len(ids) else -1 for p in positions], np.int32)
    one = as_int(given)
    tokens = [one] * len(positions) if one is not None else [as_int(t) for t in cast("Sequence[int]", given)]
    if len(tokens) != len(positions) or not all(t is not None and 0 <= t < vocabulary for t in tokens):
        raise UsageError(
            f"tokens: expected one token id, or {len(positions)}, from 0 to {vocabulary - 1}, got {given!r:.60}"
        )
    return np.array(tokens, np.int32)
