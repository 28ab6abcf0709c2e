"""One generation held in the hand: step, look, force, rewind, fork, edit. Same tokens as `generate`, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.glass.run import DRAWN, FORCED
from pellucid.held.branches import Branch, parting
from pellucid.held.guessing import Guessing, guess_for
from pellucid.held.output_log import OutputLog
from pellucid.held.plan import Plan
from pellucid.held.step_why import Origin, origin_of
from pellucid.held.steps import Step, StepRecord, Until, condition, logprobs_from
from pellucid.prompts import split_prompts
from pellucid.sampling.values import as_int
from pellucid.text.continuation import encode_continuation, one_token

if TYPE_CHECKING:
    from pellucid.engine.held import Cost, Held
    from pellucid.engine.request import Pass
    from pellucid.glass.captured import Captured
    from pellucid.held.generation_record import GenerationRecord
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams
    from pellucid.settings import Settings
    from pellucid.types import Float32, Int32


class Generation:
    """A generation that advances when it is asked to.

        generation = llm.begin("Once upon a time", temperature=0.8, seed=1)
        step = generation.peek()          # the distribution is there, nothing is chosen
        step.top(5); step.choose()        # or step.force(" there"), or generation.step() for both
        other = generation.fork(seed=2)   # shares every computed position
        generation.rewind(1).run(20)

    Made by `LLM.begin`. With the same parameters its tokens are those of `generate`, also after rewinding, since a
    draw depends on the seed, the sample index and the absolute position alone: run it again and it repeats itself,
    until the seed, the parameters or the tokens before it are changed.
    Between steps its keys and values stay in the KV cache while nobody needs the room; otherwise they are computed
    again (`cost` tells). Several threads may each drive their own; one generation is for one thread at a time.
    """

    def __init__(
        self, llm: LLM, held: Held, plan: Plan, prompt: str | None, log: OutputLog | None = None
    ) -> None:
        """Called by `LLM.begin`, `fork` and `LLM.restore`, with everything checked."""
        self._llm = llm
        self._held = held
        self._plan = plan
        self._prompt = prompt
        self._tokenizer = llm.tokenizer
        self.extra: Any = None  # what `save` was given beside the generation
        self.restored: list[Generation] = []  # other branches of its file: not held, they would be gone
        self._log = log if log is not None else OutputLog(llm.tokenizer, held, plan)
        self._pending: Step | None = None
        self._made_by: Pass | None = None  # the newest pass when the open step's logits were there
        self._cost = held.cost  # before the open step
        self.record: GenerationRecord | None = None
        self.guessing: Guessing | None = None  # what `run` guesses with, under the present parameters
        self.edition = 0  # grows with every change: a Step of an earlier one is past
        self.branch = Branch(self)
        held.sequence.stop_ids = plan.ending.stop_ids

    # --- what it is now -------------------------------------------------------------------------------
    def __len__(self) -> int:
        """Tokens, the prompt's too."""
        return len(self._held)

    @property
    def token_array(self) -> Int32:
        """int32 [tokens] of prompt and output; a view that is valid until the next change."""
        return self._held.token_ids

    @property
    def prompt_tokens(self) -> list[int]:
        found: list[int] = self.token_array[: self._log.borders[-1]].tolist()
        return found

    @property
    def tokens(self) -> list[int]:
        """What follows the prompt: chosen, forced, appended."""
        return self._log.tokens

    @property
    def text(self) -> str:
        """The text of `tokens`, as `generate` would give it had it ended here: without control tokens, without an
        ending token, cut before a stop string."""
        return self._log.text

    @property
    def prompt(self) -> str | None:
        """The prompt's text, where text was given."""
        return self._prompt

    @property
    def records(self) -> list[StepRecord]:
        """One record for each token that was not part of a prompt, also before a prompt that was appended later."""
        return self._log.records.copy()

    @property
    def steps(self) -> list[StepRecord]:
        """One record for each of `tokens`."""
        return self._log.steps

    @property
    def finish_reason(self) -> str | None:
        """As of `generate`: "eos", "stop", "length", "context". None: it goes on. Tokens that were appended or kept
        do not end it, but a full context does."""
        return self._log.finish_reason

    @property
    def stop_match(self) -> str | int | None:
        """The stop string or stop token that ended it."""
        return self._log.stop_match

    @property
    def notes(self) -> list[str]:
        """Interventions, captures and forced tokens that have not come into effect so far, a line for each."""
        return self._log.notes

    @property
    def cost(self) -> Cost:
        """Positions computed, reused, and recomputed, since it began or was forked."""
        return self._held.cost

    @property
    def settings(self) -> Settings:
        """The effective settings, with their origins."""
        return self._plan.settings

    @property
    def seed(self) -> int | None:
        """None: the choice is greedy, and nobody gave one."""
        return self.params.seed

    @property
    def sample_index(self) -> int:
        return int(self._held.sequence.sample_index)

    @property
    def params(self) -> SamplingParams:
        """May be set between steps: the next step is taken with the new ones."""
        return self._plan.params

    @params.setter
    def params(self, params: SamplingParams) -> None:
        self.configure(params)

    def configure(self, params: SamplingParams | None = None, **overrides: Any) -> Generation:
        """Other parameters from here on: `params` (None: the present ones) with these fields replaced. The seed stays
        as it is unless one is given. Errors: those of `LLM.begin`."""
        self._set_plan(self._plan.changed(self._llm, params, overrides, self.prompt_tokens))
        return self

    @property
    def captured(self) -> Captured | None:
        """What `capture=` has kept of the positions computed so far; None: nothing was to be captured."""
        from pellucid.glass.store import store_of

        store = store_of(self._held.sequence.watch)
        return None if store is None else store.captured(self.token_array)

    # --- steps ----------------------------------------------------------------------------------------
    def peek(self) -> Step:
        """The distribution of the next token; nothing is chosen. The same Step until something changes."""
        if self._pending is None:
            position = len(self._held)
            (rows,) = self._llm._open_driver().evaluate([self._held])
            self._made_by = self._llm._open_driver().last_pass
            self._pending = Step(self, position, rows[0])
        return self._pending

    def step(self, choose: bool = True) -> Step:
        """The next token chosen, or with choose=False `peek`. UsageError: the generation has ended."""
        if choose:
            self._log.check_going()
            return self.peek().choose()
        return self.peek()

    def run(self, until: Until = None) -> str:
        """Steps until the generation ends, or: so many tokens (int); until this text has appeared in what the call
        adds (str); until a function of the Step just taken says True. Returns the text that it added."""
        done, limit = condition(until), as_int(until)
        pieces: list[str] = []
        count = 0
        while self._log.finish_reason is None and (limit is None or count < limit):
            guess_for(self)
            step = self.step()
            pieces.append(step.delta or "")
            count += 1
            if done(step, pieces):
                break
        return "".join(pieces)

    def __iter__(self) -> Iterator[Step]:
        """Steps until the generation ends."""
        while self._log.finish_reason is None:
            guess_for(self)
            yield self.step()

    def choose(self) -> Step:
        """`peek().choose()`"""
        return self.peek().choose()

    def force(self, token: int | str) -> Step:
        """`peek().force(token)`: this token, given as id or as its text. For several, see `append`."""
        return self.peek().force(token)

    def logprobs(self) -> list[float]:
        """The log-probability of each of `tokens` under the model, computed in one go where steps did not."""
        return logprobs_from(self._llm._open_driver(), self._held, self._log.borders[-1])

    # --- back, aside, and in between ------------------------------------------------------------------
    def rewind(self, n: int | None = None, *, to: int | None = None) -> Generation:
        """Take the last n tokens back (default 1), or keep the first `to` positions; into the prompt, too. What was
        computed of the rest stays. Errors: UsageError (fewer tokens are there; at least one must stay)."""
        if n is not None and to is not None:
            raise UsageError("rewind: give a number of tokens or to=position, not both")
        given = as_int(to if to is not None else 1 if n is None else n)
        if given is None:
            raise UsageError(f"rewind: expected an int, got {n if to is None else to!r:.40}")
        length, most = given if to is not None else len(self) - given, len(self)
        if not 1 <= length <= most:
            raise UsageError(
                f"rewind: expected to stay with 1 to {most} tokens, got {length}; the first must stay"
            )
        self._held.truncate(length)
        self._log.cut()
        self._edited()
        return self

    def append(self, text_or_tokens: str | Sequence[int], *, as_prompt: bool = False) -> Generation:
        """Text or token ids follow, without a choice. They count as generated ("given"), or with as_prompt=True
        everything up to their end is the prompt from here on: `text` begins anew, and max_tokens and penalties count
        as in `generate` of all these tokens. Errors: UsageError, ContextOverflowError."""
        ids = self._ids_of(text_or_tokens)
        self._held.append(ids)
        self._log.append(ids, as_prompt=as_prompt)
        self._edited()
        return self

    def edit(self, position: int, token_or_text: int | str | Sequence[int]) -> Generation:
        """Another token, or a text's or list's tokens, in place of the one at this absolute position. What follows
        stays, and is computed again. Errors: UsageError, ContextOverflowError."""
        at = as_int(position)
        if at is None or not 0 <= at < len(self):
            raise UsageError(f"edit: expected a position from 0 to {len(self) - 1}, got {position!r:.40}")
        token = as_int(token_or_text)
        ids = self._ids_of(token_or_text if token is None else [token])  # type: ignore[arg-type]
        self._held.replace(at, at + 1, ids)
        self._log.replace(at, ids)
        self._edited()
        return self

    def fork(
        self, params: SamplingParams | None = None, *, sample_index: int | None = None, **overrides: Any
    ) -> Generation:
        """Another generation with the same tokens, which shares every computed position. With the same parameters it
        draws the same tokens; give it another seed, or sample_index (that of `generate(n=...)`)."""
        held = self._held.fork()
        if sample_index is not None:
            held.sequence.sample_index = sample_index
        held.sequence.num_prompt = self._log.borders[-1]
        fork = Generation(self._llm, held, self._plan, self._prompt, self._log.fork(held, self._plan))
        fork.branch = Branch(fork, self.branch, len(self))
        if self.record is not None:
            fork.record = self.record.fork(fork)
        if params is not None or overrides:
            fork.configure(params, **overrides)
        return fork

    # --- branches -------------------------------------------------------------------------------------
    @property
    def parent(self) -> Generation | None:
        """The generation that this one was forked from, while somebody holds it."""
        return self.branch.parent.generation if self.branch.parent is not None else None

    @property
    def children(self) -> list[Generation]:
        """The generations forked from this one that somebody holds."""
        return [child.generation for child in self.branch.children if child.generation is not None]

    def parts_from(self, other: Generation) -> int:
        """The first position where this generation and another differ."""
        if not isinstance(other, Generation):
            raise UsageError(f"parts_from: expected a Generation, got {type(other).__name__}")
        return parting(self, other)

    def walk(self) -> Iterator[Generation]:
        """This generation and all forked from it, parents first."""
        return (branch.generation for branch in self.branch.walk() if branch.generation is not None)

    def save(
        self, path: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None, only_this: bool = False
    ) -> None:
        """Tokens, parameters, keys and values of this generation and all branches of its tree (only_this: of this one
        alone) in one file; `LLM.restore` goes on with the same bits and computes nothing again. extra: plain JSON data
        of your own. The file appears whole or not at all; docs/session-file.md describes it.
        Errors: SessionFileError (it cannot be written; what was there is unchanged), UsageError (extra)."""
        from pellucid.held.session_save import save

        save(self, path, extra, only_this=only_this)

    def close(self) -> None:
        """Gives its memory back; done by itself where the last reference is dropped."""
        if self.record is not None:
            self.record.end(self)
        self._changed()
        self._held.close()

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        from pellucid.report.notebook import generation_html

        return generation_html(self)

    def __repr__(self) -> str:
        after, end = self._log.num_output, self._log.finish_reason or "goes on"
        return f"<Generation: {len(self) - after} prompt tokens, {after} after them, {end}>"

    # --- for Step -------------------------------------------------------------------------------------
    def process(self, logits: Float32) -> Float32:
        """float32 [vocabulary] after every processor of the parameters."""
        return self._plan.full.process(self._held.sequence, logits)

    def origin(self) -> Origin:
        """Of the step that is open."""
        return origin_of(self, self._cost, self._made_by)

    def take_choice(self, step: Step) -> None:
        choice = self._plan.sampler.choose(self._held.sequence, step.effective_logits)
        self._take(step, choice.token_id, DRAWN)

    def take_forced(self, step: Step, token: int) -> None:
        self._take(step, token, FORCED)

    def token_of(self, token: int | str) -> int:
        """The id of a token that is given as id or as its text. UsageError: no id of the vocabulary, or a text that
        is not one token."""
        return one_token(self._tokenizer, token)

    def token_text(self, token_id: int) -> str:
        """As `Tokenizer.token_text`."""
        return self._tokenizer.token_text(token_id)

    # --- inside ---------------------------------------------------------------------------------------
    def _take(self, step: Step, token: int, kind: str) -> None:
        record = step.make_record(token, kind, self.params, self.sample_index)  # before the history changes
        self._held.append([token])
        if self._held.logits is not None:  # it had been guessed, and is computed
            record = replace(record, from_draft=True)
        step.token_id, step.record = token, record
        self._changed()
        self._cost = self.cost
        step.delta = self._log.take(record)
        step.finish_reason = self._log.finish_reason
        if self.record is not None:
            self.record.step(step, self)

    def _changed(self) -> None:
        self.edition, self._pending = self.edition + 1, None

    def _edited(self) -> None:
        """A change that is no step: it goes into the run file."""
        self._changed()
        if self.record is not None:
            self.record.follow(self)

    def _ids_of(self, text_or_tokens: str | Sequence[int]) -> list[int]:
        if isinstance(text_or_tokens, str):
            return encode_continuation(self._tokenizer, text_or_tokens)
        prompts, several = split_prompts(text_or_tokens)
        if several or isinstance(prompts[0], str):
            raise UsageError("expected text or a list of token ids, got a list of several")
        return [self._tokenizer.check_id(token) for token in prompts[0]]

    def _set_plan(self, plan: Plan) -> None:
        self._plan, self.guessing = plan, None
        self._held.sequence.stop_ids = plan.ending.stop_ids
        pending = self._pending
        self._changed()
        if pending is not None:  # the logits stay what they are; the choice is made anew
            self._pending = Step(self, pending.position, pending.logits)
        self._log.set_plan(plan)
        if self.record is not None:
            self.record.follow(self)
