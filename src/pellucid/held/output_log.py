"""What a generation has put out: where prompts end, a record for each token after them, the text, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pellucid.errors import UsageError
from pellucid.glass.run import DRAWN, FORCED, GIVEN, KEPT
from pellucid.held.steps import StepRecord
from pellucid.text.continuation import ContinuationText

if TYPE_CHECKING:
    from pellucid.engine.held import Held
    from pellucid.held.plan import Plan
    from pellucid.text.tokenizer import Tokenizer


class OutputLog:
    """Follows the tokens of a held sequence. The text comes in pieces as tokens are taken, and is read again from the
    tokens after every other change: no state of it survives a change of what it has read.

    borders: where prompts ended, ascending; the last one is where the output begins. records: ascending positions,
    none for the tokens of prompts. finish_reason: see `Generation`.
    """

    def __init__(self, tokenizer: Tokenizer, held: Held, plan: Plan) -> None:
        self._tokenizer = tokenizer
        self._held = held
        self._plan = plan
        self.borders = [len(held)]
        self.records: list[StepRecord] = []
        self.finish_reason: str | None = None
        self._text: ContinuationText | None = None  # None: to be read anew
        self._num_read = 0  # output tokens that _text has seen

    def fork(self, held: Held, plan: Plan) -> OutputLog:
        """Of another sequence with the same tokens."""
        log = OutputLog(self._tokenizer, held, plan)
        log.borders, log.records = self.borders.copy(), self.records.copy()
        log.finish_reason = self.finish_reason
        return log

    # --- what there is --------------------------------------------------------------------------------
    @property
    def num_output(self) -> int:
        return len(self._held) - self.borders[-1]

    @property
    def tokens(self) -> list[int]:
        found: list[int] = self._held.token_ids[self.borders[-1] :].tolist()
        return found

    @property
    def steps(self) -> list[StepRecord]:
        """The records of `tokens`."""
        return [record for record in self.records if record.position >= self.borders[-1]]

    @property
    def notes(self) -> list[str]:
        """What was to change the model, to be captured or to be forced, and has not come into effect so far."""
        from pellucid.glass.apply import interventions_of
        from pellucid.glass.reach import notes
        from pellucid.glass.store import store_of

        watch, length = self._held.sequence.watch, len(self._held)
        store = store_of(watch)
        kept = None if store is None else store.span
        given, force_at = interventions_of(watch), self._plan.params.force_at
        return notes(given, force_at, 0, length - 1, self.num_output, kept)

    def check_going(self) -> None:
        """UsageError: it has ended."""
        if self.finish_reason is not None:
            raise UsageError(
                f"the generation has ended ({self.finish_reason}); rewind, edit or append, change its params "
                "(max_tokens, stop, ignore_eos), or force a token"
            )

    @property
    def text(self) -> str:
        """As if it ended here."""
        reading = ContinuationText(self._tokenizer, self._plan.params.stop)
        pieces = [reading.push(token) for token in self._shown()]
        return "".join(pieces) + reading.flush()

    @property
    def stop_match(self) -> str | int | None:
        if self.finish_reason != "stop":
            return None
        found = self._reading().stop_string
        return found if found is not None else int(self._held.token_ids[-1])

    # --- changes, each after that of the sequence -------------------------------------------------------
    def take(self, record: StepRecord) -> str:
        """A token that was chosen or forced; the text that it makes certain."""
        self.records.append(record)
        ending, token = self._plan.ending, record.token_id
        reading = self._reading(self.num_output - 1)
        reason = ending.reason(token, self.num_output, len(self._held))
        self._num_read += 1
        delta = reading.push(token) if reason not in ("eos", "stop") else ""
        if reason is not None and reading.stop_string is None:
            delta += reading.flush()
            if reading.stop_string is None:
                self._text = None  # at its end: whoever goes on from here reads again
        self.finish_reason = "stop" if reading.stop_string is not None else reason
        return delta

    def append(self, ids: list[int], *, as_prompt: bool) -> None:
        start = len(self._held) - len(ids)
        if as_prompt:
            self.borders.append(len(self._held))
        else:
            self.records += [self.record(start + i, token, GIVEN) for i, token in enumerate(ids)]
        self.read_again()

    def cut(self) -> None:
        """The sequence is shorter."""
        length = len(self._held)
        while self.records and self.records[-1].position >= length:
            self.records.pop()
        while len(self.borders) > 1 and self.borders[-1] > length:
            self.borders.pop()
        self.borders[-1] = min(self.borders[-1], length)
        self._held.sequence.num_prompt = self.borders[-1]
        self._text = None
        # No stop string can be whole in what is left: it would have ended the text before.
        self.finish_reason = self._reason_of_last()

    def replace(self, position: int, ids: list[int]) -> None:
        """One token has become these; what follows it has moved, and was chosen after other tokens."""
        moved = len(ids) - 1
        old = {record.position: record for record in self.records}
        self.records = [record for record in self.records if record.position < position]
        if position >= self.borders[0]:
            self.records += [self.record(position + i, token, GIVEN) for i, token in enumerate(ids)]
        tokens = self._held.token_ids
        for where in range(position + 1, len(tokens) - moved):
            if where in old:
                self.records.append(self.record(where + moved, int(tokens[where + moved]), KEPT))
        self.borders = [border + moved if border > position else border for border in self.borders]
        self.read_again()

    def set_plan(self, plan: Plan) -> None:
        self._plan = plan
        self.read_again()

    def read_again(self) -> None:
        """After a change other than a step: the text is forgotten; what ends it, if anything, is found again."""
        self._held.sequence.num_prompt = self.borders[-1]
        self._text = None
        self.finish_reason = self._reason_of_last()
        searched = self._plan.params.stop and self.finish_reason not in ("eos", "stop")
        if searched and self._reading().stop_string is not None:
            self.finish_reason = "stop"

    def record(self, position: int, token: int, kind: str) -> StepRecord:
        return StepRecord(position, token, self._tokenizer.token_text(token), kind)

    # --- inside ---------------------------------------------------------------------------------------
    def _last_chosen(self) -> StepRecord | None:
        """The record of the last token, if it was chosen or forced."""
        last = self.records[-1] if self.records and self.num_output else None
        return last if last is not None and last.kind in (DRAWN, FORCED) else None

    def _reason_of_last(self) -> str | None:
        last = self._last_chosen()
        token = last.token_id if last is not None else -1
        return self._plan.ending.reason(token, self.num_output, len(self._held))

    def _shown(self) -> list[int]:
        """The tokens whose text is shown: all but one that ended it."""
        last = self._last_chosen()
        ends = last is not None and last.token_id in self._plan.ending.stop_ids
        return self.tokens[:-1] if ends else self.tokens

    def _reading(self, num_tokens: int | None = None) -> ContinuationText:
        """What has read the first num_tokens tokens of the output, or all."""
        if self._text is None:
            self._text, self._num_read = ContinuationText(self._tokenizer, self._plan.params.stop), 0
        start = self.borders[-1]
        stop = start + (self.num_output if num_tokens is None else num_tokens)
        for token in self._held.token_ids[start + self._num_read : stop].tolist():
            self._text.push(token)
            self._num_read += 1
        return self._text
