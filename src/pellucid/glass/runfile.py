"""Reading a run file. docs/run-file.md describes it.

A reader trusts nothing: whatever is not as it must be is a RunFileError that says where.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from pellucid.errors import RunFileError
from pellucid.glass import run_writer as form
from pellucid.glass.frames import FrameReader
from pellucid.glass.run import KINDS, PROMPT, Plan, Run, RunBranch, RunDrop, RunToken, settings_from
from pellucid.settings import BEFORE

_MOST_JSON = 1 << 26  # bytes
_MOST_TOKENS = 1 << 24  # of a branch


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run that a file holds; needs no model. A file that is still being written, or that a kill has cut, is read
    up to its last whole frame (`Run.complete`, `Run.num_cut_bytes` tell). RunFileError: absent, damaged, or no run
    file."""
    from pellucid.paths import as_path

    return _Reader(str(as_path("run file", path))).read()


class _Reader:
    def __init__(self, path: str) -> None:
        self._frames = FrameReader(path)
        self._at = 0
        self._run: Run | None = None
        self._altered: dict[int, dict[int, float]] = {}

    def read(self) -> Run:
        handlers: dict[int, Callable[[bytes], None]] = {
            form.BRANCH: self._branch,
            form.STEP: self._step,
            form.TOKENS: self._tokens,
            form.CUT: self._cut,
            form.PLAN: self._plan,
            form.DROP: self._drop,
            form.END: self._end,
            form.ALTERED: self._note_altered,
            form.ARRAY: self._array,
        }
        for at, kind, payload in self._frames:
            self._at = at
            try:
                if self._run is None:
                    self._header(kind, payload)
                elif kind in handlers:
                    handlers[kind](payload)
                else:
                    self._fail(f"a frame of kind {kind}, which version {form.VERSION} does not have")
            except (
                struct.error,
                ValueError,
                TypeError,
                KeyError,
                OverflowError,
                RecursionError,
                zlib.error,
            ) as error:
                if isinstance(error, RunFileError):
                    raise
                self._fail(f"a frame that cannot be read ({type(error).__name__}: {error})")
        run = self._run
        if run is None:
            self._frames.fail("is cut before the end of its first frame; nothing of the run is left")
        run.num_cut_bytes = self._frames.num_cut_bytes
        run.num_bytes = os.path.getsize(run.path)
        return run

    # --- frames -----------------------------------------------------------------------------------------
    def _header(self, kind: int, payload: bytes) -> None:
        if kind != form.HEADER:
            self._fail("another frame than the header comes first")
        data = self._json(payload)
        if data.get("version") != form.VERSION:
            told = str(data.get("version"))[:20]
            self._frames.fail(f"is of version {told!a}; this pellucid reads version {form.VERSION}")
        self._run = Run(
            path=self._frames.path,
            version=self._get(data, "pellucid", str),
            created=self._get(data, "created", str),
            build=self._get(data, "build", dict),
            model={**BEFORE, **self._get(data, "model", dict)},
            model_name=self._get(data, "model_name", str),
            load=settings_from(self._get(data, "settings", dict)),
            digests=self._get(data, "digests", str),
            num_layers=self._get(data, "num_layers", int),
        )

    def _branch(self, payload: bytes) -> None:
        length = int.from_bytes(payload[:4], "little")
        data, ids = self._json(payload[4 : 4 + length]), _ids(payload[4 + length :])
        run = self._need()
        parent = self._get(data, "parent", int, None)
        common: dict[str, Any] = {
            "index": len(run.branches),
            "request": self._get(data, "request", int),
            "strategy": self._get(data, "strategy", str),
            "sample_index": self._get(data, "sample_index", int),
        }
        if parent is None:
            branch = RunBranch(
                prompt=self._get(data, "prompt", str, None),
                prompt_ids=ids,
                plans=[self._plan_of(self._get(data, "plan", dict))],
                interventions=self._get(data, "interventions", list),
                cache_salt=self._get(data, "cache_salt", str, None),
                companion_ids=self._get(data, "companion_ids", list, None),
                **common,
            )
        else:
            above = self._named(parent)
            at = self._get(data, "forked_at", int)
            if not 1 <= at <= len(above.prompt_ids) + len(above.tokens):
                self._fail(f"a branch forked at token {at} of its parent, which is not there")
            branch = RunBranch(
                prompt=above.prompt,
                prompt_ids=above.prompt_ids[:at],
                plans=above.plans.copy(),
                parent=parent,
                forked_at=at,
                tokens=above.tokens[: max(0, at - len(above.prompt_ids))],
                interventions=above.interventions,
                cache_salt=above.cache_salt,
                **common,
            )
            branch.drops = [drop for drop in above.drops if drop.after <= len(branch.tokens)]
            branch.arrays, branch.companion_ids = above.arrays, above.companion_ids
        if any(type(i) is not int or not 0 <= i < 2**31 for i in branch.companion_ids or ()):
            self._fail("companion_ids that are no token ids")
        run.branches.append(branch)

    def _step(self, payload: bytes) -> None:
        index, token, kind, flags, plan, count, *told, digest, sketch = form.STEP_HEAD.unpack_from(payload)
        layers = struct.unpack_from(f"<{count}Q", payload, form.STEP_HEAD.size)
        if len(payload) != form.STEP_HEAD.size + 8 * count:
            self._fail("a step of another size than it says")
        branch = self._named(index)
        if plan >= len(branch.plans) or token < 0 or flags > 7:
            self._fail("a step that names no plan of its branch, or no token")
        altered = self._altered.pop(index, None)
        if (altered is not None) != bool(flags & form.HAS_ALTERED):
            self._fail("a step whose altered logits are missing, or are another's")
        has_digest = flags & form.HAS_DIGEST
        self._add(
            branch,
            RunToken(
                _position(branch),
                token,
                KINDS[kind] if kind < len(KINDS) else self._fail(f"a token of kind {kind}"),
                plan,
                bool(flags & form.FROM_DRAFT),
                digest if has_digest else None,
                sketch if has_digest else None,
                layers if count else None,
                *[*told, altered],  # pass_number to text, in the same order
            ),
        )

    def _tokens(self, payload: bytes) -> None:
        index, kind = form.TOKENS_HEAD.unpack_from(payload)
        branch, ids = self._named(index), _ids(payload[form.TOKENS_HEAD.size :])
        if kind >= len(KINDS) or any(token < 0 for token in ids):
            self._fail("tokens of no kind, or no tokens")
        if KINDS[kind] == PROMPT and not branch.tokens:
            branch.prompt_ids += ids
            return
        for token in ids:
            self._add(branch, RunToken(_position(branch), token, KINDS[kind], len(branch.plans) - 1))

    def _add(self, branch: RunBranch, token: RunToken) -> None:
        if not branch.prompt_ids:
            self._fail("a token without a prompt before it")
        if len(branch.tokens) >= _MOST_TOKENS:
            self._fail("more tokens than a branch can have")
        branch.tokens.append(token)
        branch.ended, branch.finish_reason = False, None

    def _cut(self, payload: bytes) -> None:
        index, length = form.CUT_BODY.unpack(payload)
        branch = self._named(index)
        kept = length - len(branch.prompt_ids)
        if kept > len(branch.tokens):
            self._fail(f"a rewind to {length} tokens, which are not there")
        branch.undone += len(branch.tokens) - max(0, kept)
        del branch.tokens[max(0, kept) :]
        if kept < 0:
            branch.prompt_ids = branch.prompt_ids[:length]
        branch.ended, branch.finish_reason = False, None

    def _plan(self, payload: bytes) -> None:
        data = self._json(payload)
        self._named(self._get(data, "branch", int)).plans.append(self._plan_of(data))

    def _plan_of(self, data: Any) -> Plan:
        stop_ids = self._get(data, "stop_ids", list)
        if not all(type(i) is int and 0 <= i < 2**31 for i in stop_ids):
            self._fail("stop_ids that are no token ids")
        seed = self._get(data, "seed", int)
        if not -(2**63) <= seed < 2**64:
            self._fail("a seed of more than 64 bits")
        own = settings_from(self._get(data, "settings", dict))
        settings = self._need().load.merged(own.values())
        return Plan(self._get(data, "params", dict), seed, tuple(stop_ids), settings)

    def _drop(self, payload: bytes) -> None:
        index, after, start, count = form.DROP_BODY.unpack(payload)
        branch = self._named(index)
        if after != len(branch.tokens):
            self._fail("a drop at another token than the last")
        branch.drops.append(RunDrop(after, start, count))

    def _end(self, payload: bytes) -> None:
        data = self._json(payload)
        branch = self._named(self._get(data, "branch", int))
        branch.finish_reason = self._get(data, "finish_reason", str, None)
        branch.stop_match = self._get(data, "stop_match", str, int, None)
        branch.timings = self._get(data, "timings", dict)
        branch.ended = True

    def _note_altered(self, payload: bytes) -> None:
        (index,) = struct.unpack_from("<I", payload)
        self._named(index)
        pairs = np.frombuffer(payload, [("id", "<i4"), ("logit", "<f4")], offset=4)
        if (pairs["id"] < 0).any() or np.isnan(pairs["logit"]).any():
            self._fail("altered logits of no token, or that are no numbers")
        self._altered[index] = dict(zip(pairs["id"].tolist(), pairs["logit"].tolist(), strict=True))

    def _array(self, payload: bytes) -> None:
        length = int.from_bytes(payload[:4], "little")
        data = self._json(payload[4 : 4 + length])
        values = np.frombuffer(payload, "<f4", offset=4 + length)
        shape = self._get(data, "shape", list)
        branch = self._named(self._get(data, "branch", int))
        branch.arrays[self._get(data, "name", str)] = values.reshape(shape)

    # --- small things -----------------------------------------------------------------------------------
    def _need(self) -> Run:
        if self._run is None:
            self._fail("no header")
        return self._run

    def _named(self, index: int) -> RunBranch:
        branches = self._need().branches
        if not 0 <= index < len(branches):
            self._fail(f"a frame of branch {index}, which has not begun")
        return branches[index]

    def _json(self, payload: bytes) -> dict[str, Any]:
        inflate = zlib.decompressobj()
        text = inflate.decompress(payload, _MOST_JSON)
        if not inflate.eof or inflate.unused_data:
            self._fail("JSON that does not end, or is too long")
        data = json.loads(text)
        if not isinstance(data, dict):
            self._fail("JSON that is no object")
        return data

    def _get(self, data: Any, key: str, *kinds: Any) -> Any:
        """A member of a JSON object, of one of these types (None: it may be null)."""
        value = data.get(key, self) if isinstance(data, dict) else self
        if not any(value is None if kind is None else type(value) is kind for kind in kinds):
            names = " or ".join("null" if kind is None else kind.__name__ for kind in kinds)
            self._fail(f"no '{key}' of type {names}")
        return value

    def _fail(self, problem: str) -> NoReturn:
        self._frames.fail(f"is damaged at byte {self._at}: {problem}")


def _position(branch: RunBranch) -> int:
    """Where its next token stands."""
    return len(branch.prompt_ids) + len(branch.tokens) - sum(drop.count for drop in branch.drops)


def _ids(data: bytes) -> list[int]:
    found: list[int] = np.frombuffer(data, "<i4").tolist()
    if found and min(found) < 0:
        raise ValueError("a negative token id")
    return found
