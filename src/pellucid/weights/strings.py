"""A string array of a GGUF file, left where it lies: 262,144 pieces cost one walk over their lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid import _native
from pellucid.types import Bytes, Int64


class StringArray:
    """`count` byte strings, each a little-endian uint64 length and its bytes, from byte `offset` of `buffer`.

    buffer: uint8 view of the whole file. The array was walked once before: all of it is in the file.
    """

    def __init__(self, buffer: Bytes, offset: int, count: int) -> None:
        self.buffer = buffer
        self.offset = offset
        self.count = count
        self._spans: tuple[Int64, Int64] | None = None

    def spans(self) -> tuple[Int64, Int64]:
        """(first byte in `buffer`, length in bytes) of each string: int64 [count] both; made when asked."""
        if self._spans is None:
            starts, lengths = np.empty(self.count, np.int64), np.empty(self.count, np.int64)
            _, num_read = _native.string_spans(self.buffer, self.offset, starts, lengths)
            if num_read != self.count:
                raise RuntimeError(f"the file was changed: string {num_read} of {self.count} is gone")
            self._spans = starts, lengths
        return self._spans

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bytes:
        starts, lengths = self.spans()
        start = int(starts[index])  # IndexError, and the meaning of negative indices, are NumPy's
        return self.buffer[start : start + int(lengths[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        starts, lengths = self.spans()
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            yield self.buffer[start : start + length].tobytes()

    def __repr__(self) -> str:
        return f"StringArray({self.count} strings at byte {self.offset})"
