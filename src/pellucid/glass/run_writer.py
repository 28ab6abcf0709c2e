"""Writing a run file while a generation runs. What frames there are and what each means: docs/run-file.md."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pellucid.glass.frames import FrameWriter
from pellucid.glass.run import KINDS, Plan, RunDrop, RunToken
from pellucid.types import Float32

VERSION = 1
HEADER, BRANCH, STEP, TOKENS, CUT, PLAN, DROP, END, ALTERED, ARRAY = range(1, 11)
# branch, token id, kind, flags, plan, layers, pass, its rows, rows computed and positions reused for the branch,
# seconds (schedule, forward, choose, text), digest, sketch; then uint64 [layers]
STEP_HEAD = struct.Struct("<IiBBHHIHIIffffQf")
TOKENS_HEAD = struct.Struct("<IB")  # branch, kind; then int32 ids
CUT_BODY = struct.Struct("<II")  # branch, how many tokens stay
DROP_BODY = struct.Struct("<IIII")  # branch, after, start, count
FROM_DRAFT, HAS_DIGEST, HAS_ALTERED = 1, 2, 4


class RunWriter:
    """Appends to a run file; what is written is in the file when the call returns. RunFileError: it cannot be
    written."""

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        """header: the members of docs/run-file.md, without "version"."""
        self._frames = FrameWriter(os.fspath(path))
        self._json(HEADER, {"version": VERSION, **header})
        self._num_branches = 0

    @property
    def path(self) -> str:
        return self._frames.path

    @property
    def num_bytes(self) -> int:
        return self._frames.num_bytes

    def begin(
        self,
        branch: Mapping[str, Any],
        prompt_ids: Iterable[int] = (),
        arrays: Mapping[str, Float32] | None = None,
    ) -> int:
        """A new branch; its index. prompt_ids, and the arrays that its interventions name: without a parent."""
        ids = np.fromiter(prompt_ids, "<i4").tobytes()
        packed = _pack(branch)
        self._frames.write(BRANCH, struct.pack("<I", len(packed)) + packed + ids)
        index, self._num_branches = self._num_branches, self._num_branches + 1
        for name, values in (arrays or {}).items():
            self.array(index, name, values)
        return index

    def steps(self, tokens: Iterable[tuple[int, RunToken]]) -> None:
        """(branch, its next token), in order."""
        frames: list[tuple[int, bytes]] = []
        for branch, token in tokens:
            if token.altered is not None:
                frames.append((ALTERED, _altered(branch, token.altered)))
            frames.append((STEP, _step(branch, token)))
        self._frames.write_all(frames)

    def packed_steps(self, payloads: Iterable[bytes]) -> None:
        """Steps as `pack_step` makes them."""
        self._frames.write_all([(STEP, payload) for payload in payloads])

    def tokens(self, branch: int, kind: str, ids: Iterable[int]) -> None:
        """Tokens that nobody chose."""
        self._frames.write(
            TOKENS, TOKENS_HEAD.pack(branch, KINDS.index(kind)) + np.fromiter(ids, "<i4").tobytes()
        )

    def cut(self, branch: int, num_tokens: int) -> None:
        """Only the first num_tokens tokens stay, the prompt's among them."""
        self._frames.write(CUT, CUT_BODY.pack(branch, num_tokens))

    def plan(self, branch: int, plan: Plan) -> None:
        """Other parameters from here on."""
        self._json(PLAN, {"branch": branch, **plan_data(plan)})

    def drop(self, branch: int, drop: RunDrop) -> None:
        self._frames.write(DROP, DROP_BODY.pack(branch, drop.after, drop.start, drop.count))

    def array(self, branch: int, name: str, values: Float32) -> None:
        """An array that an intervention refers to by its name."""
        head = _pack({"branch": branch, "name": name, "shape": list(values.shape)})
        data = np.ascontiguousarray(values, "<f4").tobytes()
        self._frames.write(ARRAY, struct.pack("<I", len(head)) + head + data)

    def end(self, branch: int, told: Mapping[str, Any]) -> None:
        """finish_reason, stop_match, timings."""
        self._json(END, {"branch": branch, **told})

    def close(self) -> None:
        self._frames.close()

    @property
    def closed(self) -> bool:
        return self._frames.closed

    def _json(self, kind: int, data: Mapping[str, Any]) -> None:
        self._frames.write(kind, _pack(data))


def pack_step(*head: Any, layers: tuple[int, ...] | None = None) -> bytes:
    """head: the fields of STEP_HEAD but `layers`, in order."""
    count = len(layers) if layers else 0
    data = STEP_HEAD.pack(*head[:5], count, *head[5:])
    return data + struct.pack(f"<{count}Q", *layers) if layers else data


def _step(branch: int, token: RunToken) -> bytes:
    flags = (FROM_DRAFT if token.from_draft else 0) | (HAS_DIGEST if token.digest is not None else 0)
    flags |= HAS_ALTERED if token.altered is not None else 0
    return pack_step(
        branch,
        token.token_id,
        KINDS.index(token.kind),
        flags,
        token.plan,
        token.pass_number & 0xFFFFFFFF,
        min(token.num_rows, 0xFFFF),
        token.num_computed or 0,
        token.num_reused or 0,
        token.schedule,
        token.forward,
        token.choose,
        token.text,
        token.digest or 0,
        token.sketch or 0.0,
        layers=token.layers,
    )


def _altered(branch: int, altered: Mapping[int, float]) -> bytes:
    pairs = np.empty(len(altered), [("id", "<i4"), ("logit", "<f4")])
    pairs["id"], pairs["logit"] = list(altered), list(altered.values())
    return struct.pack("<I", branch) + pairs.tobytes()


def plan_data(plan: Plan) -> dict[str, Any]:
    """In plain types."""
    return {
        "params": dict(plan.params),
        "seed": plan.seed,
        "stop_ids": list(plan.stop_ids),
        "settings": plan.settings.to_dict(),
    }


def _pack(data: Any) -> bytes:
    return zlib.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), 6)
