"""Recording runs: what happens to a request, or to a generation held in the hand, goes into a run file as it
happens."""

from __future__ import annotations

import os
import platform
import weakref
from collections.abc import Iterable
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, Any

from pellucid.engine.ending import Ending
from pellucid.errors import UsageError
from pellucid.fingerprint import fingerprint
from pellucid.glass.run import Plan, RunDrop, RunToken
from pellucid.glass.run_writer import RunWriter, plan_data
from pellucid.paths import as_path
from pellucid.settings import Settings

if TYPE_CHECKING:
    from pellucid.engine.request import Request, TokenEvent
    from pellucid.llm import LLM
    from pellucid.outputs import Drop
    from pellucid.running import RunningRequest
    from pellucid.sampling.params import SamplingParams


class Recorder:
    """A run file that is being written. Give it as `record=` to any number of calls of one LLM; a path does for one
    call.

        with pellucid.Recorder("run.pellucid") as recorder:
            llm.generate("Once upon a time", record=recorder)

    Each step is in the file when its token is given out; a kill leaves a file that can be read up to there. A file
    of that name is replaced if it is a run file or empty. layers: also a digest of each layer's output for every
    token, 8 bytes a layer. Errors, at the first call: RunFileError (it cannot be written, or is another file),
    UsageError (of another LLM).
    """

    def __init__(self, path: str | os.PathLike[str], *, layers: bool = False) -> None:
        self.path = os.fspath(as_path("record", path))
        if not isinstance(layers, bool):
            raise UsageError(f"layers: expected True or False, got {layers!r:.40}")
        self.layers = layers
        self.lock = RLock()
        self.num_requests = 0
        self._writer: RunWriter | None = None
        self._llm: weakref.ref[LLM] | None = None
        self._closed = False

    def attach(self, llm: LLM) -> None:
        """The file begins with what it is a run of."""
        with self.lock:
            if self._closed:
                raise UsageError(f"{self.path}: this Recorder is closed; make a new one, with another path")
            if self._llm is None:
                header = header_of(llm, num_layers=len(llm._need().model.layers) if self.layers else 0)
                self._writer = RunWriter(self.path, header)
                self._llm = weakref.ref(llm)
                weakref.finalize(self, self._writer.close)
            elif self._llm() is not llm:
                raise UsageError(f"{self.path}: this Recorder belongs to another LLM; give each its own")

    @property
    def writer(self) -> RunWriter:
        if self._writer is None:
            raise RuntimeError("a Recorder writes once it is attached to an LLM")
        return self._writer

    @property
    def num_bytes(self) -> int:
        """Written so far."""
        return 0 if self._writer is None else self._writer.num_bytes

    def new_request(self) -> int:
        with self.lock:
            self.num_requests += 1
            return self.num_requests - 1

    def close(self) -> None:
        """Nothing more is recorded; requests that still run end with an error."""
        with self.lock:
            self._closed = True
            if self._writer is not None:
                self._writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Recorder {self.path}: {self.num_requests} requests, {self.num_bytes} bytes>"


def as_recorder(record: Any, llm: LLM) -> Recorder | None:
    """`record=` of a call. UsageError, RunFileError."""
    if record is None:
        return None
    recorder = record if isinstance(record, Recorder) else Recorder(as_path("record", record))
    recorder.attach(llm)
    return recorder


def header_of(llm: LLM, num_layers: int) -> dict[str, Any]:
    """What a run file says of the model, the program and the machine."""
    import pellucid

    loaded = llm._need()
    runner = getattr(loaded.ops, "runner", None)
    return {
        "pellucid": pellucid.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "build": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            "backend": loaded.ops.name,
            "instruction_set": runner.isa if runner is not None else "",
        },
        "model": fingerprint(llm),
        "model_name": str(llm.settings["model"].value),
        "settings": llm.settings.to_dict(),
        "digests": "final",
        "num_layers": num_layers,
    }


def plan_of(
    params: SamplingParams, seed: int, stop_ids: Iterable[int], settings: Settings, load: Settings
) -> Plan:
    """settings: all of them; those that are the model's own, as in the header, are left out."""
    own = Settings(each for name, each in settings.items() if name not in load or load[name] != each)
    return Plan(params.to_dict(), seed, tuple(int(i) for i in stop_ids), own)


class RequestRecord:
    """What becomes of one request. Called by the driver and by `RunningRequest`, under the driver's lock."""

    def __init__(self, recorder: Recorder, llm: LLM, interventions: Any = ()) -> None:
        self._recorder = recorder
        self._load = llm.settings
        self._context = llm.context_length
        self._branches: dict[int, int] = {}  # by sample
        self._done: dict[int, tuple[int, int]] = {}  # by sample: rows computed and positions reused so far

    def begin(self, running: RunningRequest, request: Request) -> None:
        """The engine has taken it."""
        params = request.params
        ending = Ending.of(params, request.stop_ids, self._context)
        plan = plan_of(params, request.seed, ending.stop_ids, running.settings, self._load)
        self._common = {"request": self._recorder.new_request(), "strategy": request.strategy}
        self._num_prompt = len(running.run_ids)
        with self._recorder.lock:
            self._branches[0] = self._recorder.writer.begin(
                {
                    **self._common,
                    "parent": None,
                    "sample_index": 0,
                    "prompt": running.prompt,
                    "plan": plan_data(plan),
                    "interventions": [],
                    "cache_salt": running.cache_salt,
                    "companion_ids": None if running.companion_ids is None else list(running.companion_ids),
                },
                running.run_ids,
            )

    def token(self, event: TokenEvent, token_id: int, seconds: float, drop: Drop | None) -> None:
        """One token of a sample, and what a full context has lost by it."""
        made_by = event.made_by
        with self._recorder.lock:
            branch, writer = self._branch(event.sample_index), self._recorder.writer
            if made_by is None:
                raise RuntimeError("a token without a pass")
            before = self._done.get(event.sample_index, (0, 0))
            self._done[event.sample_index] = event.num_computed, event.num_reused
            writer.step(
                branch,
                RunToken(
                    event.position,
                    token_id,
                    from_draft=event.from_draft,
                    pass_number=made_by.number,
                    num_rows=made_by.num_rows,
                    num_computed=event.num_computed - before[0],
                    num_reused=event.num_reused - before[1],
                    schedule=made_by.schedule,
                    forward=made_by.forward,
                    choose=made_by.choose,
                    text=seconds,
                ),
            )
            if drop is not None:
                writer.drop(branch, RunDrop(drop.after, drop.start, drop.count))

    def end(self, running: RunningRequest, sample_index: int, reason: str, match: str | int | None) -> None:
        told = {"finish_reason": reason, "stop_match": match, "timings": running.times()}
        with self._recorder.lock:
            if not self._recorder.writer.closed:
                self._recorder.writer.end(self._branch(sample_index), told)

    def _branch(self, sample_index: int) -> int:
        """That of a sample; a further one begins where the prompt ends."""
        found = self._branches.get(sample_index)
        if found is None:
            told = {**self._common, "parent": self._branches[0], "forked_at": self._num_prompt}
            found = self._recorder.writer.begin({**told, "sample_index": sample_index})
            self._branches[sample_index] = found
        return found
