"""A generation that is read while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pellucid.errors import RunFileError
from pellucid.outputs import Chunk, GenerationResult
from pellucid.settings import Settings

if TYPE_CHECKING:
    from pellucid.serving.driver import Driver
    from pellucid.serving.running import RunningRequest


class Stream(Iterator[Chunk]):
    """Chunks of one request, as they come; computes only while it is read.

        with llm.stream("Once upon a time") as stream:
            for chunk in stream:
                print(chunk.text, end="", flush=True)
        stream.result  # the same as `generate` would have given

    `close()` (or leaving the `with` block, dropping the last reference, or an exception such as Ctrl-C while
    a chunk is awaited) aborts what still runs and frees its memory; the text so far stays in `result`.
    """

    def __init__(self, request: RunningRequest, driver: Driver) -> None:
        self._request = request
        self._driver = driver
        self._told = False  # its error has been raised

    def __next__(self) -> Chunk:
        request = self._request
        try:
            while True:
                done = request.done  # before looking for chunks: the last one comes before the end
                if request.chunks:
                    break
                if done:
                    if request.error is not None:
                        self._told = True
                        raise request.error
                    raise StopIteration
                self._driver.advance(request)
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise
        return request.chunks.popleft()

    @property
    def prompt_token_ids(self) -> list[int]:
        return self._request.prompt_ids

    @property
    def settings(self) -> Settings:
        """The effective settings of this request, with their origins."""
        return self._request.settings

    @property
    def result(self) -> GenerationResult:
        """All that was generated so far; whole once the iteration has ended."""
        return self._request.result()

    def close(self) -> None:
        """Abort what still runs. Chunks that were not read are dropped; `result` keeps their text. RunFileError: it is
        recorded, and not all of it could be written."""
        self.end()

    def end(self) -> list[Chunk]:
        """As `close`; the chunks that were computed and not read."""
        request = self._request
        if not request.done:
            self._driver.abort(request)
        if isinstance(request.error, RunFileError) and not self._told:
            self._told = True
            raise request.error
        return self.unread()

    def unread(self) -> list[Chunk]:
        """The chunks that are computed; they are then read."""
        chunks = list(self._request.chunks)
        self._request.chunks.clear()
        return chunks

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._request.done:
            self._driver.drop(self._request)
