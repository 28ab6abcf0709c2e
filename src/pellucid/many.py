"""Many requests, a bounded number of them in the engine at a time, ordered so that equal beginnings meet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from pellucid.progress_bar import prompts_bar

if TYPE_CHECKING:
    from pellucid.driver import Driver
    from pellucid.outputs import GenerationResult
    from pellucid.running import RunningRequest

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
