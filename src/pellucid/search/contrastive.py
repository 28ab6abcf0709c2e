"""`llm.contrastive_search`: outputs that do not repeat themselves, without chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from pellucid.decoding.contrastive import ContrastiveSearch, ContrastiveStep, LookaheadTree, Output
from pellucid.decoding.goal import Found
from pellucid.errors import UsageError
from pellucid.prompts import check_count, split_prompts
from pellucid.sampling.values import as_float
from pellucid.search.hidden_rows import HiddenRows
from pellucid.search.search import output_of
from pellucid.search.space import space_of
from pellucid.search.tree import HeldTree, Rows, Work, logits_together

if TYPE_CHECKING:
    from pellucid.decoding.expansion import Float64, Path
    from pellucid.llm import LLM
    from pellucid.sampling.params import SamplingParams


@dataclass(frozen=True, slots=True)
class ContrastiveResult:
    """token_ids: an end token included; text: without it. finish_reason: "eos" or "length". steps: the candidates of
    every token and what decided. work: rows computed and reused; passes are shared with the other prompts of the
    call, which took `seconds`."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    steps: tuple[ContrastiveStep, ...]
    work: Work
    seconds: float
    prompt_token_ids: tuple[int, ...]

    def __repr__(self) -> str:
        return f"ContrastiveResult({self.text!r}, {self.finish_reason}, {len(self.steps)} steps, {self.work})"

    def to_dict(self) -> dict[str, Any]:
        """In plain types."""
        return asdict(self) | {"work": self.work._asdict()}


class _Tree:
    """A `LookaheadTree` of held sequences, each of which keeps the hidden states of its own tokens."""

    def __init__(self, tree: HeldTree) -> None:
        self.tree = tree
        self.stop_ids: list[int] = tree.space.stop_ids.tolist()
        self._last: dict[Path, Rows] = {}

    def distribution(self, path: Path) -> Float64:
        return self.tree.space.renormalised(path, self._last[path])

    def hidden(self, path: Path) -> Float64:
        return cast(HiddenRows, self.tree.watch_of(path)).rows

    def release(self, path: Path) -> None:
        self.tree.release(path)

    def keep(self, paths: Sequence[Path], rows: Sequence[Rows]) -> None:
        self._last = dict(zip(paths, rows, strict=True))


def contrastive_search(
    llm: LLM,
    prompt: Any,
    params: SamplingParams | None,
    *,
    max_tokens: int,
    alpha: float,
    k: int,
    min_tokens: int,
    cache_salt: str | None,
    overrides: dict[str, Any],
) -> ContrastiveResult | list[ContrastiveResult]:
    """`LLM.contrastive_search`."""
    start = perf_counter()
    check_count("k", k, 1)
    weight = as_float(alpha)
    if weight is None or not 0 <= weight <= 1:
        raise UsageError(f"alpha: expected a number from 0 to 1, got {alpha!r:.40}")
    prompts, several = split_prompts(prompt)
    spaces = [
        space_of(llm, each, params, max_tokens, min_tokens, None, cache_salt, overrides) for each in prompts
    ]
    model = llm._need().model
    # A path's hidden states are in its held sequence: none is to be evicted.
    trees = [
        _Tree(HeldTree(llm, space, salt, 4 * (k + 1), HiddenRows(len(model.layers), model.width)))
        for space, salt in spaces
    ]
    try:
        outputs = ContrastiveSearch(k, weight, max_tokens).run(trees, _evaluate)
    finally:
        for each in trees:
            each.tree.close()
    seconds = perf_counter() - start
    results = [_result(llm, tree, output, seconds) for tree, output in zip(trees, outputs, strict=True)]
    return results if several else results[0]


def _evaluate(wanted: Sequence[tuple[LookaheadTree, Sequence[Path]]]) -> None:
    trees = [cast(_Tree, tree) for tree, _ in wanted]
    found = logits_together([(tree.tree, paths) for tree, (_, paths) in zip(trees, wanted, strict=True)])
    for tree, (_, paths), rows in zip(trees, wanted, found, strict=True):
        tree.keep(paths, rows)


def _result(llm: LLM, tree: _Tree, output: Output, seconds: float) -> ContrastiveResult:
    plain = output_of(llm, Found(0.0, 0.0, output.path, output.ended))
    return ContrastiveResult(
        output.path, plain.text, plain.finish_reason, tuple(output.steps), tree.tree.work, seconds,
        tree.tree.space.prompt_ids,
    )  # fmt: skip
