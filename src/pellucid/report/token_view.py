"""One token's view from its row of logits: its place in the distribution, and what else was probable."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pellucid.report.page_data import Candidate, TokenView
from pellucid.sampling.distribution import Distribution

if TYPE_CHECKING:
    from pellucid.sampling.record import ChoiceRecord
    from pellucid.text.tokenizer import Tokenizer
    from pellucid.types import Float32


class TokenReader:
    """Makes `TokenView`s. top: how many of the most probable tokens each names; the token itself comes after them
    where it is not among them."""

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer = tokenizer
        self._top = top
        self._texts: dict[int, str] = {}

    def text(self, token_id: int) -> str:
        found = self._texts.get(token_id)
        if found is None:
            found = self._texts[token_id] = self._tokenizer.token_text(token_id)
        return found

    def unseen(self, position: int, token_id: int, kind: str) -> TokenView:
        """A token whose distribution was not looked at."""
        return TokenView(position, token_id, self.text(token_id), kind)

    def seen(
        self,
        position: int,
        token_id: int,
        kind: str,
        logits: Float32,
        *,
        choice: ChoiceRecord | None = None,
        processed: Float32 | None = None,
        seconds: float | None = None,
        note: str = "",
        flags: Iterable[str] = (),
    ) -> TokenView:
        """logits, processed: float32 [vocabulary] before and after all stages; processed None: there was no stage, or
        no choice. Nothing of them is kept."""
        before = Distribution(logits)
        after = None if processed is None else Distribution(processed)
        ids = before.top(self._top)
        if token_id not in ids:
            ids.append(token_id)
        top = tuple(
            Candidate(
                each, self.text(each), before.logprob(each), None if after is None else after.logprob(each)
            )
            for each in ids
        )
        return TokenView(
            position=position,
            token_id=token_id,
            text=self.text(token_id),
            kind=kind,
            logprob=before.logprob(token_id),
            rank=before.rank(token_id),
            entropy=before.entropy,
            top=top,
            choice=choice,
            runner_up=None if choice is None or choice.runner_up is None else self.text(choice.runner_up),
            stage_tops=() if choice is None else tuple(self.text(stage.top) for stage in choice.stages),
            seconds=seconds,
            note=note,
            flags=tuple(flags),
        )


def readable(tokens: Iterable[TokenView], tokenizer: Tokenizer) -> list[TokenView]:
    """The same with `shown` where a character is spread over tokens: the token that ends it shows it, those before show
    their bytes as \\xNN, and so does what can never be a character."""
    made: list[TokenView] = []
    decoder = _Utf8()
    for token in tokens:
        raw = tokenizer.token_bytes(token.token_id)
        waiting = decoder.num_waiting
        text = decoder.read(raw)
        if text is not None and not waiting and not decoder.num_waiting:
            made.append(token)  # whole characters
            continue
        rest = raw if text is None else raw[max(0, len(raw) - decoder.num_waiting) :]
        shown = (text or "") + "".join(f"\\x{byte:02x}" for byte in rest)
        made.append(replace(token, shown=shown or token.text))
    return made


class _Utf8:
    """Bytes as they come; num_waiting: of a character that has begun."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("strict")
        self.num_waiting = 0

    def read(self, raw: bytes) -> str | None:
        """The characters that these bytes complete. None: they cannot go on from here nor begin anew."""
        for _ in range(2):
            try:
                text = self._decoder.decode(raw)
            except UnicodeDecodeError:
                self._decoder.reset()
                self.num_waiting = 0
                continue
            self.num_waiting = len(self._decoder.getstate()[0])
            return text
        return None
