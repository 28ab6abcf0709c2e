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
from pellucid.glass.apply import Together
from pellucid.glass.digests import DigestWatch, Taken, rows_of
from pellucid.glass.intervention_file import interventions_to_data
from pellucid.glass.run import Plan, RunDrop
from pellucid.glass.run_writer import FROM_DRAFT, HAS_DIGEST, RunWriter, pack_step, plan_data
from pellucid.paths import as_path
from pellucid.settings import Settings

if TYPE_CHECKING:
    from pellucid.engine.request import Request, TokenEvent
    from pellucid.llm import LLM
    from pellucid.outputs import Drop
    from pellucid.sampling.params import SamplingParams
    from pellucid.serving.running import RunningRequest
    from pellucid.types import Watch


MOST_WAITING = 64  # steps
LONGEST_WAIT = 0.25  # seconds


class Recorder:
    """A run file that is being written. Give it as `record=` to any number of calls of one LLM; a path does for one
    call.

        with pellucid.Recorder("run.pellucid") as recorder:
            llm.generate("Once upon a time", record=recorder)

    Steps are in the file a quarter of a second after their tokens at the latest, as long as tokens come, and at the
    end; a kill leaves a file that can be read up to there. A file of that name is replaced if it is a run file or
    empty. layers: also a digest of each layer's output for every token, 8 bytes a layer. Errors, at the first call:
    RunFileError (it cannot be written, or is another file), UsageError (of another LLM).
    """

    def __init__(self, path: str | os.PathLike[str], *, layers: bool = False) -> None:
        self.path = os.fspath(as_path("record", path))
        if not isinstance(layers, bool):
            raise UsageError(f"layers: expected True or False, got {layers!r:.40}")
        self.layers = layers
        self.lock = RLock()
        self.num_requests = 0
        self._steps: StepBuffer | None = None
        self._llm: weakref.ref[LLM] | None = None
        self._closed = False

    def attach(self, llm: LLM) -> None:
        """The file begins with what it is a run of."""
        with self.lock:
            if self._closed:
                raise UsageError(f"{self.path}: this Recorder is closed; make a new one, with another path")
            if self._llm is None:
                header = header_of(llm, num_layers=len(llm._need().model.layers) if self.layers else 0)
                self._steps = StepBuffer(RunWriter(self.path, header))
                self._llm = weakref.ref(llm)
                weakref.finalize(self, self._steps.close)
            elif self._llm() is not llm:
                raise UsageError(f"{self.path}: this Recorder belongs to another LLM; give each its own")

    @property
    def steps(self) -> StepBuffer:
        if self._steps is None:
            raise RuntimeError("a Recorder writes once it is attached to an LLM")
        return self._steps

    @property
    def writer(self) -> RunWriter:
        """For what is no step: the steps before it are written."""
        return self.steps.flushed()

    @property
    def num_bytes(self) -> int:
        """Written so far."""
        return 0 if self._steps is None else self._steps.writer.num_bytes

    @property
    def closed(self) -> bool:
        return self._closed

    def watching(self, other: Watch | None, family: list[DigestWatch] | None = None) -> Watch:
        """What looks at the rows of a sequence whose steps are recorded; `other` does, too."""
        llm = None if self._llm is None else self._llm()
        if llm is None:
            raise RuntimeError("a Recorder watches once it is attached to an LLM")
        own = DigestWatch(
            len(llm._need().model.layers), layers=self.layers, family=family, logit_rows_only=not self.layers
        )
        return own if other is None else Together(other, own)

    def new_request(self) -> int:
        with self.lock:
            self.num_requests += 1
            return self.num_requests - 1

    def close(self) -> None:
        """Nothing more is recorded; requests that still run end with an error."""
        with self.lock:
            self._closed = True
            if self._steps is not None:
                self._steps.close()

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


# What is needed to write one step; as little as can be is done with it before `packed`: record, branch, event, seconds
# that its text took, and what its watch had taken of the final hidden state and of the layers.
Waiting = tuple["RequestRecord", int, "TokenEvent", float, Taken | None, Taken | None]


def packed(step: Waiting) -> bytes:
    """`RunWriter.steps` of the same, without the detour."""
    record, branch, event, text, final, outputs = step
    made_by = event.made_by
    if made_by is None:
        raise RuntimeError("a token without a pass")
    flags = FROM_DRAFT if event.from_draft else 0
    hidden, projection, layers = 0, 0.0, None
    rows = rows_of(final, outputs, event.position - 1)
    if rows is not None:
        hidden, projection, layers = rows.told()
        flags |= HAS_DIGEST
    computed, reused = record.since_last(event)
    return pack_step(
        branch,
        event.token_id,
        0,  # drawn
        flags,
        0,  # the only plan
        made_by.number & 0xFFFFFFFF,
        min(made_by.num_rows, 0xFFFF),
        computed,
        reused,
        made_by.schedule,
        made_by.forward,
        made_by.choose,
        text,
        hidden,
        projection,
        layers=layers,
    )


class StepBuffer:
    """Steps wait here a moment and are written many at a time: after a forward pass nothing of Python is in the
    processor's caches, and a step costs three times what it costs in a row of steps."""

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer
        self._waiting: list[Waiting] = []
        self._since = 0.0

    def add(self, step: Waiting, now: float) -> None:
        """now: by `perf_counter`. RunFileError: those that waited cannot be written."""
        waiting = self._waiting
        if not waiting:
            self._since = now
        waiting.append(step)
        if len(waiting) >= MOST_WAITING or now - self._since > LONGEST_WAIT:
            self.flushed()

    def flushed(self) -> RunWriter:
        """The writer, once nothing waits. RunFileError."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.writer.packed_steps([packed(step) for step in waiting])
        return self.writer

    def close(self) -> None:
        if not self.writer.closed:
            try:
                self.flushed()
            finally:
                self.writer.close()


class RequestRecord:
    """What becomes of one request. Called by the driver and by `RunningRequest`, under the driver's lock."""

    def __init__(self, recorder: Recorder, llm: LLM) -> None:
        self._recorder, self._steps, self._lock = recorder, recorder.steps, recorder.lock
        self._load = llm.settings
        self._context = llm.context_length
        self._watches: list[DigestWatch] = []  # by sample
        self._branches: dict[int, int] = {}  # by sample
        self._done: dict[int, tuple[int, int]] = {}  # by sample: rows computed and positions reused so far

    def watching(self, other: Watch | None) -> Watch:
        """What looks at the first sample's rows; `other` does, too."""
        return self._recorder.watching(other, self._watches)

    def begin(self, running: RunningRequest, request: Request) -> None:
        """The engine has taken it."""
        params = request.params
        ending = Ending.of(params, request.stop_ids, self._context)
        plan = plan_of(params, request.seed, ending.stop_ids, running.settings, self._load)
        self._common = {"request": self._recorder.new_request(), "strategy": request.strategy}
        self._num_prompt = len(running.run_ids)
        interventions, arrays = interventions_to_data(
            () if running.looking is None else running.looking.interventions
        )
        with self._recorder.lock:
            self._branches[0] = self._recorder.writer.begin(
                {
                    **self._common,
                    "parent": None,
                    "sample_index": 0,
                    "prompt": running.prompt,
                    "plan": plan_data(plan),
                    "interventions": interventions,
                    "cache_salt": running.cache_salt,
                    "companion_ids": None if running.companion_ids is None else list(running.companion_ids),
                },
                running.run_ids,
                arrays,
            )

    def token(self, event: TokenEvent, seconds: float, drop: Drop | None, now: float) -> None:
        """One token of a sample, and what a full context has lost by it; now: by `perf_counter`. Every line here
        costs a pass ten times what it costs in a loop, since the model's weights have gone through the caches."""
        sample = event.sample_index
        watch = self._watches[sample]
        with self._lock:
            branch = self._branches.get(sample)
            if branch is None:
                branch = self._branch(sample)
            self._steps.add((self, branch, event, seconds, watch.final, watch.outputs), now)
            if drop is not None:
                self._recorder.writer.drop(branch, RunDrop(drop.after, drop.start, drop.count))

    def since_last(self, event: TokenEvent) -> tuple[int, int]:
        """Rows computed and positions reused since the sample's last token. Asked once for each, in order."""
        before = self._done.get(event.sample_index, (0, 0))
        self._done[event.sample_index] = now = event.num_computed, event.num_reused
        return now[0] - before[0], now[1] - before[1]

    def end(self, running: RunningRequest, sample_index: int, reason: str, match: str | int | None) -> None:
        told = {"finish_reason": reason, "stop_match": match, "timings": running.times()}
        with self._recorder.lock:
            if self._branches and not self._recorder.closed:
                self._recorder.writer.end(self._branch(sample_index), told)

    def _branch(self, sample_index: int) -> int:
        """That of a sample; a further one begins where the prompt ends."""
        found = self._branches.get(sample_index)
        if found is None:
            told = {**self._common, "parent": self._branches[0], "forked_at": self._num_prompt}
            found = self._recorder.writer.begin({**told, "sample_index": sample_index})
            self._branches[sample_index] = found
        return found
