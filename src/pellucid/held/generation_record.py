"""A generation that is held in the hand, and its forks, as branches of a run file: every step, and every change."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pellucid.front.recorder import Recorder, plan_of
from pellucid.glass.apply import at_positions
from pellucid.glass.digests import DigestWatch
from pellucid.glass.intervention_file import interventions_to_data
from pellucid.glass.run import PROMPT, RunToken
from pellucid.glass.run_writer import plan_data
from pellucid.held.step_why import altered_of

if TYPE_CHECKING:
    from pellucid.front.looking import Looking
    from pellucid.held.generation import Generation
    from pellucid.held.steps import Step
    from pellucid.types import Watch


class GenerationRecord:
    """Follows one generation. What it has written, and in which order, is what the generation is: a change that is no
    step is found by comparing the two."""

    def __init__(
        self, recorder: Recorder, generation: Generation, branch: int, request: int, num_plans: int
    ) -> None:
        self._recorder, self._branch, self._request = recorder, branch, request
        self._plan, self._num_plans = generation._plan, num_plans
        self._written = written_of(generation)
        self._ended = False

    @classmethod
    def begin(
        cls, recorder: Recorder, generation: Generation, looking: Looking | None, cache_salt: str | None
    ) -> GenerationRecord:
        """RunFileError."""
        # Positions in place of steps: what counts as the prompt may change while a generation goes on.
        given = () if looking is None else at_positions(looking.interventions, len(generation))
        interventions, arrays = interventions_to_data(given)
        with recorder.lock:
            request = recorder.new_request()
            branch = recorder.writer.begin(
                {
                    "request": request,
                    "parent": None,
                    "sample_index": generation.sample_index,
                    "strategy": "sample",
                    "prompt": generation.prompt,
                    "plan": plan_data(_plan(generation)),
                    "interventions": interventions,
                    "cache_salt": cache_salt,
                    "companion_ids": None,
                },
                generation.token_array.tolist(),
                arrays,
            )
        return cls(recorder, generation, branch, request, 1)

    def fork(self, generation: Generation) -> GenerationRecord:
        """Of a fork of the generation."""
        with self._recorder.lock:
            branch = self._recorder.writer.begin(
                {
                    "request": self._request,
                    "parent": self._branch,
                    "forked_at": len(generation),
                    "sample_index": generation.sample_index,
                    "strategy": "sample",
                }
            )
        return GenerationRecord(self._recorder, generation, branch, self._request, self._num_plans)

    def step(self, step: Step, generation: Generation) -> None:
        """A token that was just chosen or forced."""
        record, origin = step.record, step.origin
        if record is None:
            raise RuntimeError("a step that was not taken")
        watch = digest_watch_of(generation._held.sequence.watch)
        rows = watch.rows_at(step.position - 1) if watch is not None else None
        hidden, projection, layers = (None, None, None) if rows is None else rows.told()
        made_by = origin.made_by
        token = RunToken(
            step.position,
            record.token_id,
            record.kind,
            self._num_plans - 1,
            record.from_draft,
            hidden,
            projection,
            layers,
            pass_number=made_by.number if made_by else 0,
            num_rows=made_by.num_rows if made_by else 0,
            num_computed=origin.computed,
            num_reused=origin.reused,
            schedule=made_by.schedule if made_by else 0.0,
            forward=made_by.forward if made_by else 0.0,
            altered=altered_of(step),
        )
        with self._recorder.lock:
            self._recorder.writer.steps([(self._branch, token)])
            self._written.append((record.token_id, record.kind))
            self._ended = False
            if generation.finish_reason is not None:
                self.end(generation)

    def follow(self, generation: Generation) -> None:
        """A change that is no step: tokens were taken back, appended, replaced, or the parameters are others."""
        with self._recorder.lock:
            writer = self._recorder.writer
            if generation._plan is not self._plan:
                self._plan = generation._plan
                self._num_plans += 1
                writer.plan(self._branch, _plan(generation))
            now = written_of(generation)
            common = next(
                (i for i, (a, b) in enumerate(zip(self._written, now, strict=False)) if a != b),
                min(len(self._written), len(now)),
            )
            if common < len(self._written):
                writer.cut(self._branch, common)
            for kind, tokens in groupby(now[common:], key=lambda each: each[1]):
                writer.tokens(self._branch, kind, [token for token, _ in tokens])
            if now != self._written:
                self._ended = False
            self._written = now

    def end(self, generation: Generation) -> None:
        """It has ended, or nobody will go on with it."""
        if self._ended or self._recorder.closed:
            return
        self._ended = True
        told: dict[str, Any] = {
            "finish_reason": generation.finish_reason,
            "stop_match": generation.stop_match,
            "timings": {},
        }
        with self._recorder.lock:
            self._recorder.writer.end(self._branch, told)


def written_of(generation: Generation) -> list[tuple[int, str]]:
    """Each token with its kind."""
    kinds = {record.position: record.kind for record in generation._log.records}
    return [(token, kinds.get(i, PROMPT)) for i, token in enumerate(generation.token_array.tolist())]


def digest_watch_of(watch: Watch | None) -> DigestWatch | None:
    """The one among watches that act together."""
    if isinstance(watch, DigestWatch):
        return watch
    return next((each for each in getattr(watch, "watches", ()) if isinstance(each, DigestWatch)), None)


def _plan(generation: Generation) -> Any:
    params, ending = generation.params, generation._plan.ending
    seed = params.seed if params.seed is not None else 0
    return plan_of(params, seed, ending.stop_ids, generation.settings, generation._llm.settings)
