"""An answer of a chat while it is generated: taken apart as it comes, and kept in its turn however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from pellucid.chat.turn import ChatTurn
from pellucid.outputs import Chunk, GenerationResult
from pellucid.serving.stream import Stream
from pellucid.text.answers.parser import AnswerParser
from pellucid.text.answers.spans import Span, ToolCall
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """What one token made certain of an answer.

    text: shown text. reasoning: text of a reasoning span. tool_calls: calls that are complete. Each may be empty:
    what could still become a marker, and a call that is not complete, are held back. spans: the same, with the
    markers. chunk: the token, its log-probabilities, and why the answer ended.
    """

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    spans: tuple[Span, ...]
    chunk: Chunk


class ChatAnswer(Iterator[ChatChunk]):
    """Chunks of one answer, computed as they are read.

        for chunk in chat.say("Hello"):
            print(chunk.text, end="", flush=True)

    `close()` (or leaving a `with` block, dropping the last reference, or Ctrl-C while a chunk is awaited) ends the
    answer there: what was said stays in the chat and is marked (`turn.interrupted`).
    """

    def __init__(
        self,
        stream: Stream,
        turn: ChatTurn,
        parser: AnswerParser,
        tokenizer: Tokenizer,
        on_failure: Callable[[ChatTurn], None],
    ) -> None:
        self.turn = turn
        self._stream = stream
        self._parser = parser
        self._tokenizer = tokenizer
        self._controls = {token_id: piece for piece, token_id in tokenizer.control_pieces.items()}
        self._on_failure = on_failure
        self._token_ids: list[int] = []
        self._ended = False

    def __next__(self) -> ChatChunk:
        if self._ended:
            raise StopIteration
        try:
            chunk = next(self._stream)
            if chunk.finish_reason == "error":
                next(self._stream)  # raises what it was
        except StopIteration:
            self._end("abort")  # somebody else closed what computes it
            raise
        except Exception:
            self._ended = True
            self._on_failure(self.turn)
            raise
        except BaseException:  # Ctrl-C: what was said stays
            self.close()
            raise
        return self._take(chunk)

    def _take(self, chunk: Chunk) -> ChatChunk:
        spans = self._parser.push(chunk.text)
        if chunk.token_id is not None:
            self._token_ids.append(chunk.token_id)
        ends = chunk.finish_reason in ("eos", "stop")
        if chunk.token_id is not None and chunk.token_id in self._controls and not ends:
            spans += self._parser.control(self._controls[chunk.token_id])
            self.turn.verbatim = False
        if chunk.finish_reason is not None:
            spans += self._parser.finish()
            self._end(chunk.finish_reason)
        return ChatChunk(
            "".join(span.raw for span in spans if span.kind == "text"),
            "".join(span.raw for span in spans if span.kind == "reasoning"),
            tuple(call for span in spans for call in span.calls),
            tuple(spans),
            chunk,
        )

    def _end(self, reason: str) -> None:
        """The turn is whole, or as whole as it will be."""
        if self._ended:
            return
        self._ended = True
        self._parser.finish()
        turn = self.turn
        turn.answer = self._parser.answer
        turn.token_ids = self._token_ids
        turn.finish_reason = reason
        turn.result = self._stream.result
        turn.transcript = turn.prompt.answered(self._token_ids)

    @property
    def result(self) -> ChatTurn:
        """The turn: its text, reasoning and calls (`answer`), how it ended, what it cost. While it runs: so far."""
        if not self._ended:
            self.turn.answer = self._parser.answer
            self.turn.result = self._stream.result
        return self.turn

    @property
    def generation(self) -> GenerationResult:
        return self._stream.result

    def read(self) -> ChatTurn:
        """The rest of the answer, all at once; the turn."""
        for _ in self:
            pass
        return self.turn

    def close(self) -> None:
        """End the answer here."""
        if not self._ended:
            for chunk in self._stream.end():
                self._take(chunk)
            self._end("abort")

    def __enter__(self) -> ChatAnswer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):  # the stream's own end is its finaliser's business
            for chunk in self._stream.unread():
                self._take(chunk)
            self._end("abort")
