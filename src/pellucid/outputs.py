"""What a generation gives back: text, token ids, why it ended, what it cost. Plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import exp
from typing import TYPE_CHECKING, Any

from pellucid.settings import Settings

if TYPE_CHECKING:
    from pellucid.report.notebook import Piece


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have been chosen, and the natural logarithm of its probability.

    `text`: what the token adds to a text; bytes that are no whole character as \\xNN.
    """

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Constrained:
    """What a constraint (json_schema, regex, grammar, choices) did to one choice.

    `allowed_logprob`: of all tokens that it allows together, under the distribution that it was given (the model's,
    where it is the first stage). `wanted`, `wanted_text`: the most probable token before it. `forced`: it left no
    other.
    """

    allowed_logprob: float
    wanted: int
    wanted_text: str
    forced: bool


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The chosen token's log-probabilities and the most probable alternatives, best first.

    `logprob` and `top`: of the model's own distribution. `processed_logprob` and `processed_top`: after
    penalties, temperature and cuts, that is, of what the token was chosen from (-inf: excluded).
    """

    token_id: int
    text: str
    logprob: float
    processed_logprob: float
    top: tuple[Alternative, ...] = ()
    processed_top: tuple[Alternative, ...] = ()
    constraint: Constrained | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """What overflow "slide" took out of a full context: `count` tokens at position `start`.

    `after`: how many tokens were generated before it (0: the prompt itself was too long). Later tokens moved to
    the front and were computed again there.
    """

    after: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class DraftPass:
    """A forward pass that checked guesses for one sample. `after`: how many tokens were generated before it. `source`:
    who guessed ("context", "corpus", "model", "grammar", "jacobi"). `accepted` of the `drafted` guesses became tokens,
    and the pass gave one token more, unless the text ended. `revised`: guesses of a Jacobi block that it changed."""

    after: int
    source: str
    drafted: int
    accepted: int
    revised: int = 0


@dataclass(frozen=True, slots=True)
class SpeculationCounts:
    """Guesses over all samples: `drafted` were checked in `passes` forward passes, `accepted` became tokens.
    `saved`: the part of the generated tokens that needed no pass of their own. `failures`: drafters that failed and
    were not asked again, with the error."""

    drafted: int
    accepted: int
    passes: int
    saved: float
    revised: int = 0
    failures: tuple[tuple[str, str], ...] = ()

    @property
    def mean_accepted(self) -> float:
        """Guesses that became tokens, in the mean of the passes that had any."""
        return self.accepted / self.passes if self.passes else 0.0

    @property
    def acceptance(self) -> float:
        """The part of the guesses that became tokens."""
        return self.accepted / self.drafted if self.drafted else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            **asdict(self),
            "failures": dict(self.failures),
            "mean_accepted": self.mean_accepted,
            "acceptance": self.acceptance,
        }


@dataclass(frozen=True, slots=True)
class Chunk:
    """One new token of one sample. The concatenation of `text` over a sample's chunks is the sample's text.

    `text` may be empty: an unfinished character and the beginning of a possible stop string are held back.
    `token_id` is None only in a last chunk that brings no token (the context was full, or an abort).
    """

    text: str
    token_id: int | None
    sample_index: int
    position: int | None  # position of the token in its sequence, from 0
    logprobs: TokenLogprobs | None = None
    finish_reason: str | None = None
    stop_match: str | int | None = None
    drop: Drop | None = None  # of tokens before the next one, because this one filled the context
    from_draft: bool = (
        False  # it had been guessed, and its row was computed together with that of the token before
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens: `prompt` = `computed` + `reused` (from the prefix cache); `generated` over all samples."""

    prompt: int
    computed: int
    reused: int
    generated: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. Rates share the machine with whatever else ran then; None where nothing was timed."""

    tokenize: float
    time_to_first_token: float | None  # from the request's entry into the engine
    total: float
    prefill_tokens_per_second: float | None  # computed prompt tokens up to the first token
    decode_tokens_per_second: float | None  # generated tokens after the first one of each sample


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt.

    `token_ids` hold every generated token, an ending EOS or stop token too; `text` does not show those, and
    ends before a stop string. `finish_reason`: "eos", "stop" (`stop_match`: the stop string or id), "length"
    (max_tokens), "context" (the context is full), "deadline", "abort". None: still running. `drops`: what overflow
    "slide" took out of the context. `from_draft`: of each token, whether a guess was right there; `draft_passes`: those
    that checked guesses. `captured`: the activations that `capture=` asked for.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None
    stop_match: str | int | None = None
    logprobs: list[TokenLogprobs] | None = None
    drops: tuple[Drop, ...] = ()
    captured: Any = field(default=None, repr=False, compare=False)  # a glass.captured.Captured
    from_draft: tuple[bool, ...] = ()
    draft_passes: tuple[DraftPass, ...] = ()

    @property
    def forfeited(self) -> float | None:
        """Log-mass in nats that the constraint took from the model's distribution, over all tokens: how much less
        probable this text is under the model than among what the constraint allows, step by step. None: there was
        no constraint, or `logprobs` was not asked for."""
        steps = [token.constraint for token in self.logprobs or ()]
        if not steps or any(step is None for step in steps):
            return None
        return -sum(step.allowed_logprob for step in steps if step is not None)

    def __repr__(self) -> str:
        return f"Sample({_quoted(self.text)}, {_count(len(self.token_ids), 'token')}, {_why(self)})"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, but what was captured: `captured.save` writes that."""
        found = asdict(replace(self, captured=None))
        del found["captured"]
        return found


@dataclass(frozen=True)
class GenerationResult:
    """The answer to one prompt: `outputs` holds its samples, n of them; `text`, `token_ids`, `finish_reason`,
    `stop_match` and `logprobs` are the first sample's. `prompt` is None where ids were given. `prompt_token_ids`:
    all of them, also those that overflow "slide" dropped; `counts` tells of those that were run. `speculation`: None
    where no guess was checked. `interventions`: what was changed within the model (glass/intervene.py). `notes`: what
    was asked for and never came into effect, because the text ended before it, a line for each."""

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[Sample]
    counts: Counts
    timings: Timings
    settings: Settings = field(repr=False)
    speculation: SpeculationCounts | None = None
    interventions: tuple[Any, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.outputs[0].text

    @property
    def token_ids(self) -> list[int]:
        return self.outputs[0].token_ids

    @property
    def finish_reason(self) -> str | None:
        return self.outputs[0].finish_reason

    @property
    def stop_match(self) -> str | int | None:
        return self.outputs[0].stop_match

    @property
    def logprobs(self) -> list[TokenLogprobs] | None:
        return self.outputs[0].logprobs

    @property
    def captured(self) -> Any:
        """The first sample's `Captured`; None: `capture=` was not given."""
        return self.outputs[0].captured

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, but what was captured, and the arrays of interventions."""
        return {
            "prompt": self.prompt,
            "prompt_token_ids": self.prompt_token_ids,
            "outputs": [sample.to_dict() for sample in self.outputs],
            "counts": asdict(self.counts),
            "timings": asdict(self.timings),
            "settings": self.settings.to_dict(),
            "speculation": None if self.speculation is None else self.speculation.to_dict(),
            "interventions": [each.plain() for each in self.interventions],
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """One line of counts and rates."""
        counts, timings = self.counts, self.timings
        parts = [f"prompt {_count(counts.prompt, 'token')} ({counts.reused} reused)"]
        if timings.time_to_first_token is not None:
            parts.append(f"first token after {timings.time_to_first_token * 1e3:.0f} ms")
        if timings.prefill_tokens_per_second is not None:
            parts.append(f"prefill {timings.prefill_tokens_per_second:.1f} tokens/s")
        parts.append(f"{_count(counts.generated, 'token')} generated")
        if timings.decode_tokens_per_second is not None:
            parts.append(f"decode {timings.decode_tokens_per_second:.1f} tokens/s")
        if self.speculation is not None:
            s = self.speculation
            parts.append(f"{s.accepted} of {_count(s.drafted, 'guess', 'guesses')} right")
            parts += [f"drafter '{name}' failed: {why}" for name, why in s.failures]
        return ", ".join(parts)

    def __repr__(self) -> str:
        if len(self.outputs) == 1:
            body = repr(self.outputs[0]).removeprefix("Sample(").removesuffix(")")
        else:
            body = "outputs=[" + ", ".join(repr(sample) for sample in self.outputs) + "]"
        return f"GenerationResult({'; '.join([body, self.summary(), *self.notes])})"

    def _repr_html_(self) -> str:
        from pellucid.report.notebook import Piece, note, token_strip

        prompt = [] if self.prompt is None else [Piece(self.prompt, dim=True)]
        blocks = "".join(
            token_strip([*prompt, *_pieces(sample)]) + note(_why(sample)) for sample in self.outputs
        )
        return f"<div>{blocks}{''.join(map(note, [self.summary(), *self.notes]))}</div>"


def _pieces(sample: Sample) -> list[Piece]:
    """The text; with log-probabilities, one piece a token, and its alternatives where the pointer is."""
    from pellucid.report.notebook import Piece

    if not sample.logprobs:
        return [Piece(sample.text)]
    pieces = []
    for token in sample.logprobs:
        others = ", ".join(f"{a.text!r} {exp(a.logprob):.3f}" for a in token.top)
        title = f"{token.token_id}: p = {exp(token.logprob):.3f}" + (f"; {others}" if others else "")
        pieces.append(Piece(token.text, token.logprob, title=title))
    return pieces


def _quoted(text: str, limit: int = 60) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}... ({len(text)} characters)"


def _count(number: int, noun: str, nouns: str = "") -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def _why(sample: Sample) -> str:
    if sample.finish_reason is None:
        return "still running"
    match = f" on {sample.stop_match!r}" if sample.stop_match is not None else ""
    dropped = sum(drop.count for drop in sample.drops)
    slid = f", {_count(dropped, 'token')} dropped from the context" if dropped else ""
    return f"finished: {sample.finish_reason}{match}{slid}"
