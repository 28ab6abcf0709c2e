"""A conversation as tokens: what was rendered and what was generated, and how it goes on with what a template renders.

Generated tokens stay as they are, even where encoding their text would give others. A rendering of the longer
conversation is compared with what is there; where it begins with that, only the rest is encoded. Where it does not
(a template that drops reasoning or trims answers), the tokens up to the first difference stay. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pellucid.text.tokenizer import Tokenizer

SHOWN = 40  # characters of each side that a difference shows


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text, or a control token's id, and the tokens that stand for it.

    added: a BOS that the tokenizer put there; renderings do not have it.
    """

    part: str | int
    ids: tuple[int, ...]
    added: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a rendering did to a transcript.

    kept: tokens that stayed, from the start. dropped: tokens that went; 0: the rendering went on from what was
    there. added: tokens that are new. difference: "there: ...; rendered: ...", the first characters that differ, or
    "" where nothing was dropped.
    """

    kept: int
    dropped: int
    added: int
    difference: str = ""

    @property
    def append_only(self) -> bool:
        return self.dropped == 0


class Transcript:
    """Immutable. `ids` are the tokens of the conversation so far."""

    def __init__(self, tokenizer: Tokenizer, segments: Iterable[Segment] = ()) -> None:
        self._tokenizer = tokenizer
        self.segments = tuple(segments)
        self.ids: list[int] = [token_id for segment in self.segments for token_id in segment.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Transcript({len(self)} tokens)"

    @property
    def text(self) -> str:
        """Control tokens spelled."""
        return "".join(self._spelled(segment.part) for segment in self.segments)

    def answered(self, token_ids: Sequence[int]) -> Transcript:
        """With these generated tokens after it."""
        controls = set(self._tokenizer.control_pieces.values())
        new: list[Segment] = []
        for control, run in groupby(token_ids, key=controls.__contains__):
            ids = tuple(run)
            if control:
                new += [Segment(token_id, (token_id,)) for token_id in ids]
            else:
                new.append(Segment(self._tokenizer.join(ids).decode("utf-8", "replace"), ids))
        return Transcript(self._tokenizer, (*self.segments, *new))

    def written(self, text: str) -> Transcript:
        """With a text that somebody else than the model wrote after it."""
        last = next((segment.part for segment in reversed(self.segments) if segment.part != ""), None)
        return Transcript(self._tokenizer, (*self.segments, *self._encoded(last, [text] if text else [])))

    def rendered(self, parts: Sequence[str | int]) -> tuple[Transcript, Change]:
        """As a template renders it now. `parts`: of text/chat.render_parts."""
        if not self.segments:
            fresh = self._fresh(parts)
            return fresh, Change(0, 0, len(fresh.ids))
        kept, rest = self._common(parts)
        if all(segment.added for segment in kept):
            new = self._fresh(parts)
        else:
            new = Transcript(self._tokenizer, [*kept, *self._encoded(self._last(kept), rest)])
        same = _agreement(self.ids, new.ids)
        dropped = len(self.ids) - same
        shown = self._difference(kept, rest) if dropped else ""
        return new, Change(same, dropped, len(new.ids) - same, shown)

    # --- how far a rendering agrees -------------------------------------------------------------------
    def _common(self, parts: Sequence[str | int]) -> tuple[list[Segment], list[str | int]]:
        """(the segments that `parts` begin with, the last of them perhaps cut; the rest of `parts`)."""
        rest = list(parts)
        kept: list[Segment] = []
        for segment in self.segments:
            if segment.added or segment.part == "":  # nothing of it is in a rendering
                kept.append(segment)
                continue
            if not rest or isinstance(rest[0], str) != isinstance(segment.part, str):
                break
            head = rest.pop(0)
            if isinstance(head, str) and isinstance(segment.part, str):
                same = _agreement(head, segment.part)
                part = segment if same == len(segment.part) else self._cut(segment, same)
                size = len(str(part.part)) if part else 0
                kept += [part] if part else []
                rest[:0] = [head[size:]] if size < len(head) else []
                if part is not segment:
                    break
            elif head == segment.part:
                kept.append(segment)
            else:
                rest.insert(0, head)
                break
        return kept, rest

    @staticmethod
    def _last(segments: Sequence[Segment]) -> str | int:
        """What the next tokens come after: a text without characters is none."""
        return next(segment.part for segment in reversed(segments) if segment.part != "")

    def _cut(self, segment: Segment, characters: int) -> Segment | None:
        """The tokens that lie within the first `characters` of a text; None: none does."""
        text = str(segment.part)
        data, lead = text.encode("utf-8", "replace"), 0
        whole = self._tokenizer.join(segment.ids)
        if whole == b" " + data:  # the space that the tokenizer put before the text
            lead = 1
        elif whole != data:  # a tokenizer that changes its text: no token's place in it is known
            return None
        room = len(text[:characters].encode("utf-8")) + lead
        size = number = 0
        best: tuple[int, int] | None = None
        for number, token_id in enumerate(segment.ids, 1):
            size += len(self._tokenizer.token_bytes(token_id))
            if size > room:
                break
            if size > lead and not b"\x80" <= whole[size : size + 1] < b"\xc0":  # inside of a character
                best = (number, size)
        if best is None:
            return None
        number, size = best
        return Segment(whole[lead:size].decode("utf-8"), segment.ids[:number])

    def _difference(self, kept: Sequence[Segment], rest: Sequence[str | int]) -> str:
        before = sum(len(self._spelled(segment.part)) for segment in kept)
        there = self.text[before : before + SHOWN]
        rendered = "".join(map(self._spelled, rest))[:SHOWN]
        return f"there: {there!r}; rendered: {rendered!r}"

    def _spelled(self, part: str | int) -> str:
        return part if isinstance(part, str) else self._tokenizer.piece(part)

    # --- new tokens -----------------------------------------------------------------------------------
    def _fresh(self, parts: Sequence[str | int]) -> Transcript:
        tokenizer = self._tokenizer
        segments = self._encoded(None, parts)
        ids = [token_id for segment in segments for token_id in segment.ids]
        if tokenizer.adds_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
            segments = [Segment(tokenizer.bos_id, (tokenizer.bos_id,), added=True), *segments]
        return Transcript(tokenizer, segments)

    def _encoded(self, previous: str | int | None, parts: Sequence[str | int]) -> list[Segment]:
        """The segments of `parts`, which come after `previous` (None: at the start)."""
        ids = iter(self._ids_after(previous, parts))
        controls = set(self._tokenizer.control_pieces.values())
        runs = [(key, tuple(run)) for key, run in groupby(ids, key=controls.__contains__)]
        flat: list[tuple[int, ...]] = []
        for control, run in runs:
            flat += [(token_id,) for token_id in run] if control else [run]
        segments: list[Segment] = []
        for part in parts:
            text_run = bool(flat) and flat[0][0] not in controls
            if isinstance(part, int) or text_run:
                segments.append(Segment(part, flat.pop(0)))
            elif part:  # a text that no token stands for
                segments.append(Segment(part, ()))
        return segments

    def _ids_after(self, previous: str | int | None, parts: Sequence[str | int]) -> list[int]:
        encode = self._tokenizer.encode_parts
        if not parts:
            return []
        if previous is None:
            return encode(list(parts), parse_special=False)
        if isinstance(previous, int) or isinstance(parts[0], int):
            anchor = previous if isinstance(previous, int) else None
            if anchor is None:
                return encode(list(parts), parse_special=False)
            return encode([anchor, *parts], parse_special=False)[1:]
        for lead in ("a", "\n", "."):  # in the middle of a text no space is put before it
            head, whole = encode([lead], parse_special=False), encode([lead, *parts], parse_special=False)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return encode(list(parts), parse_special=False)


def _agreement(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two sequences have in common from their start."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # slices compare in C; a loop over the items would not
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low
