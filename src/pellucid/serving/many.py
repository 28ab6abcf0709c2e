"""Many requests, a bounded number of them in the engine at a time, ordered so that equal beginnings meet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pellucid.errors import PellucidError, UsageError
from pellucid.prompts import check_template_variables, is_messages, split_prompts
from pellucid.serving.progress_bar import prompts_bar

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.outputs import GenerationResult
    from pellucid.serving.driver import Driver
    from pellucid.serving.running import RunningRequest

K = TypeVar("K")
T = TypeVar("T")


def run_many(
    driver: Driver, requests: Iterable[tuple[K, RunningRequest]], most: int
) -> Generator[tuple[K, RunningRequest], None, None]:
    """Each (key, request) as it is done, in the order of their ends.

    requests: read only as places become free. most: samples that are in the engine at a time (one request always
    is). Whatever ends the iteration, Ctrl-C or `close`, also ends the requests that still run.
    """
    running: dict[K, RunningRequest] = {}
    source, places = iter(requests), 0
    upcoming = next(source, None)
    try:
        while upcoming is not None or running:
            while upcoming is not None and (not running or places + upcoming[1].params.n <= most):
                key, request = upcoming
                running[key] = request
                driver.add(request)
                places += request.params.n
                upcoming = next(source, None)
            driver.advance(next(iter(running.values())))
            for key in [key for key, request in running.items() if request.done]:
                request = running.pop(key)
                places -= request.params.n
                yield key, request
    finally:
        for request in running.values():
            driver.abort(request)


def in_windows(items: Iterable[T], size: int, key: Callable[[T], list[int]]) -> Iterator[T]:
    """The items, of which each `size` are sorted: prompts that begin alike follow each other, so that one finds in
    the cache what the one before it computed."""
    source = iter(items)
    while window := list(islice(source, size)):
        yield from sorted(window, key=key)


class Job(NamedTuple, Generic[K]):
    """A prompt of a batch: text, token ids or chat messages, and the fields of its request."""

    key: K
    prompt: Any
    fields: Mapping[str, Any]


def run_jobs(
    llm: LLM, jobs: Iterable[Job[K]], *, model_defaults: bool, sort: bool
) -> Generator[tuple[K, GenerationResult | PellucidError], None, None]:
    """Each key with its result or the error that is its own, in the order of their ends. `sort`: jobs are taken in an
    order that shares prefixes. Errors of the jobs themselves end no other job."""
    refused: deque[tuple[K, PellucidError]] = deque()

    def prepared() -> Iterator[tuple[K, RunningRequest]]:
        for job in jobs:
            try:
                yield job.key, _prepare(llm, job, model_defaults)
            except PellucidError as error:
                refused.append((job.key, error))

    loaded = llm._need()
    ordered = in_windows(prepared(), loaded.places if sort else 1, key=lambda pair: pair[1].run_ids)
    with closing(run_many(llm._open_driver(), ordered, loaded.places)) as finished:
        for key, request in finished:
            while refused:
                yield refused.popleft()
            error = request.error
            if error is not None and not isinstance(error, PellucidError):
                raise error
            yield key, error if error is not None else request.result()
    yield from refused


def _prepare(llm: LLM, job: Job[K], model_defaults: bool) -> RunningRequest:
    """Errors: PellucidError, whatever is wrong with the prompt or a field."""
    fields = dict(job.fields)
    parse_special, salt = fields.pop("parse_special", False), fields.pop("cache_salt", None)
    if is_messages(job.prompt):
        variables = check_template_variables(fields.pop("template_variables", None))
        prompt: str | list[int] = llm.render_chat(job.prompt, **variables)
    else:
        prompts, several = split_prompts(job.prompt)
        if several:
            raise UsageError("expected one prompt, text or token ids; give each a line of its own")
        prompt = prompts[0]
    return llm._prepare(prompt, None, model_defaults, parse_special, fields, cache_salt=salt)


def generate_all(
    driver: Driver, requests: Sequence[RunningRequest], most: int, progress: bool | None
) -> list[GenerationResult]:
    """The result of each, in their order. The first error of one of them is raised, and ends the others."""
    results: list[GenerationResult | None] = [None] * len(requests)
    ordered = sorted(enumerate(requests), key=lambda pair: pair[1].run_ids)
    with (
        prompts_bar(len(requests), False if len(requests) == 1 else progress) as advance,
        closing(run_many(driver, ordered, most)) as finished,
    ):
        for index, request in finished:
            if request.error is not None:
                raise request.error
            result = results[index] = request.result()
            advance(result.counts.generated)
    return [result for result in results if result is not None]
