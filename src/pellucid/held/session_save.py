"""A generation and its branches, to a file and back: what of them is kept, and what a file must agree with."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pellucid.engine.snapshot import as_bytes
from pellucid.errors import PellucidError, UsageError
from pellucid.fingerprint import fingerprint
from pellucid.glass.run import DRAWN, FORCED, GIVEN, KEPT
from pellucid.held import session_file
from pellucid.held.branches import Branch
from pellucid.held.generation import Generation
from pellucid.held.output_log import OutputLog
from pellucid.held.plan import Plan
from pellucid.held.session_file import SessionFile
from pellucid.held.steps import StepRecord
from pellucid.paths import as_path
from pellucid.prompts import check_salt, check_token_ids
from pellucid.sampling.params import SamplingParams
from pellucid.settings import BEFORE, CALLER, Setting

if TYPE_CHECKING:
    from pellucid.llm import LLM
    from pellucid.types import Array, Bytes

_NUMBERS = ("logprob", "processed_logprob")


def save(
    generation: Generation, path: str | os.PathLike[str], extra: Mapping[str, Any] | None, *, only_this: bool
) -> None:
    """`Generation.save`."""
    path = as_path("save", path)
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"extra: expected plain JSON data: {error}") from None
    # Strong references: nobody drops a branch while it is being written.
    root = generation.branch if only_this else generation.branch.root
    branches = [generation.branch] if only_this else [b for b in root.walk() if b.generation is not None]
    generations = [g for g in (branch.generation for branch in branches) if g is not None]
    write(generation._llm, path, generations, generation, extra)


def write(
    llm: LLM,
    path: str | os.PathLike[str],
    generations: Sequence[Generation],
    head: Generation | None,
    extra: Mapping[str, Any] | None,
) -> None:
    """These generations, parents first; head is one of them, or None where there are none."""
    prints = fingerprint(llm)
    snapshot = llm._open_driver().snapshot([each._held for each in generations])
    tensors: dict[str, Array] = {f"kv.{i}": array for i, array in enumerate(snapshot.arrays) if len(array)}
    number = {id(each): i for i, each in enumerate(generations)}
    states = []
    for i, each in enumerate(generations):
        tensors[f"tokens.{i}"] = each.token_array.copy()
        states.append(_state(each, _above(each.branch, number), snapshot.tables[i], snapshot.num_computed[i]))
    manifest = {
        "model": prints,
        "name": str(llm.settings["model"].value),
        "branches": states,
        "head": None if head is None else number[id(head)],
        "extra": extra,
    }
    try:
        session_file.write(path, manifest, tensors)
    except TypeError as error:
        raise UsageError(f"these parameters cannot be saved: {error}") from None


def _above(branch: Branch, number: Mapping[int, int]) -> int | None:
    """The nearest branch above that is saved, too."""
    above = branch.parent
    while above is not None and id(above.generation) not in number:
        above = above.parent
    return None if above is None else number[id(above.generation)]


def _state(each: Generation, parent: int | None, table: list[int], num_computed: int) -> dict[str, Any]:
    records = []
    for record in each._log.records:
        plain = asdict(record)
        for name in ("token_id", "text", "from_draft"):  # the tokens tell; guesses are not kept
            del plain[name]
        for name in _NUMBERS:  # JSON has no -inf
            if plain[name] is not None and not math.isfinite(plain[name]):
                plain[name] = str(plain[name])
        records.append(list(plain.values()))
    return {
        "parent": parent,
        "forked_at": each.branch.forked_at,
        "label": each.branch.label,
        "prompt": each.prompt,
        "borders": each._log.borders,
        "records": records,
        "params": each.params.to_dict(),
        "sample_index": each.sample_index,
        "cache_salt": each._held.sequence.salt,
        "blocks": table,
        "num_computed": num_computed,
    }


def restore(llm: LLM, path: str | os.PathLike[str], *, kv: bool) -> Generation:
    """`LLM.restore`."""
    file = opened(llm, path, kv=kv)
    made = branches_in(file, llm, kv=kv)
    head = file.get(file.manifest, "head", (int, type(None)))
    if head is None and not made:
        file.fail("is a conversation without a turn; use restore_chat")
    if head is None or not 0 <= head < len(made):
        file.fail("is damaged: 'head' names no branch")
    generation = made[head]
    generation.extra = file.manifest.get("extra")
    generation.restored = [each for each in made if each is not generation]
    return generation


def opened(llm: LLM, path: str | os.PathLike[str], *, kv: bool) -> SessionFile:
    """The file, if it is of this model; kv: and its keys and values are those that would be computed here."""
    file = SessionFile(as_path("restore", path))
    prints, said = fingerprint(llm), {**BEFORE, **file.get(file.manifest, "model", dict)}
    needed = prints if kv else {name: prints[name] for name in ("architecture", "tokenizer", "weights")}
    wrong = next((name for name, value in needed.items() if said.get(name) != value), None)
    if wrong is not None:
        name = str(file.manifest.get("name"))[:60]
        file.fail(
            f"was saved with another {_SPOKEN[wrong]} ({str(said.get(wrong))[:16]}, here "
            f"{str(prints[wrong])[:16]}; model {name!a}); {_REMEDY.get(wrong, 'load that model')}"
        )
    return file


def branches_in(file: SessionFile, llm: LLM, *, kv: bool) -> list[Generation]:
    """All branches, in the order of the file."""
    arrays = _arrays(file, llm) if kv else []
    made: list[Generation] = []
    for i, state in enumerate(file.get(file.manifest, "branches", list)):
        try:
            made.append(_generation(file, llm, state, i, arrays, made))
        except (PellucidError, TypeError) as error:
            if isinstance(error, PellucidError) and str(error).startswith(str(file.path)):
                raise
            file.fail(f"is damaged: branch {i}: {error}")
    return made


_SPOKEN = {
    "architecture": "architecture",
    "tokenizer": "tokenizer",
    "weights": "model",
    "backend": "backend",
    "kv_format": "KV format",
    "activations": "format of activations",
    "block_size": "size of KV blocks",
    "numbers": "way of computing",
}
_REMEDY = {
    "backend": "give that backend, or kv=False to compute anew",
    "kv_format": "give that kv_format, or kv=False to compute anew",
    "activations": "give those activations, or kv=False to compute anew",
    "block_size": "give kv=False to compute anew",
    "numbers": "this version of pellucid computes other bits; give kv=False to compute anew",
}


def _arrays(file: SessionFile, llm: LLM) -> list[Bytes]:
    """Keys and values: views of the file, one array for each tensor of the cache."""
    sizes = llm._open_driver().block_bytes()
    present = [name for name in file.tensors if name.startswith("kv.")]
    if not present:
        return []
    arrays = [file.tensor(f"kv.{i}", "U8", 2) for i in range(len(sizes))]
    if len(present) != len(sizes) or any(
        array.shape != (len(arrays[0]), size) for array, size in zip(arrays, sizes, strict=True)
    ):
        file.fail("is damaged: its keys and values are not of this model's shape")
    return [as_bytes(array) for array in arrays]


def _generation(
    file: SessionFile, llm: LLM, state: Any, index: int, arrays: list[Bytes], made: list[Generation]
) -> Generation:
    loaded, driver = llm._need(), llm._open_driver()
    tokens = file.tensor(f"tokens.{index}", "I32", 1)
    context = loaded.capacity.context_length
    check_token_ids(tokens.tolist(), loaded.model.vocabulary_size, context, loaded.model.context_length, None)
    params = SamplingParams(**file.get(state, "params", dict))
    listed = [Setting(name, value, CALLER, "restored") for name, value in params.to_dict().items()]
    plan = Plan.of(llm, params, llm.settings.merged(listed))
    table, num_computed = _ints(file, state, "blocks"), file.get(state, "num_computed", int)
    size = loaded.capacity.block_size
    if not 0 <= num_computed <= len(tokens) or len(table) != -(-num_computed // size):
        file.fail("is damaged: 'blocks' do not hold 'num_computed' positions")
    if arrays and not all(0 <= row < len(arrays[0]) for row in table):
        file.fail("is damaged: 'blocks' names one that is not there")
    held = driver.hold(tokens, salt=check_salt(file.get(state, "cache_salt", (str, type(None)))))
    if arrays and num_computed:
        driver.put_back(held, table, num_computed, arrays)
    sample_index = file.get(state, "sample_index", int)
    if not 0 <= sample_index < 1 << 31:
        file.fail("is damaged: 'sample_index' is out of range")
    held.sequence.sample_index = sample_index
    log = OutputLog(llm.tokenizer, held, plan)
    log.borders, log.records = _borders(file, state, len(tokens)), _records(file, state, tokens, llm)
    if [r.position for r in log.records if r.position >= log.borders[-1]] != list(
        range(log.borders[-1], len(tokens))
    ):
        file.fail("is damaged: 'records' are not those of its tokens")
    log.read_again()
    generation = Generation(llm, held, plan, file.get(state, "prompt", (str, type(None))), log)
    parent = file.get(state, "parent", (int, type(None)))
    if parent is not None:
        if not 0 <= parent < len(made):
            file.fail("is damaged: 'parent' names a branch that is not there")
        generation.branch = Branch(generation, made[parent].branch, file.get(state, "forked_at", int))
    generation.branch.label = file.get(state, "label", str)
    return generation


def _ints(file: SessionFile, state: Any, name: str) -> list[int]:
    values = file.get(state, name, list)
    if not all(type(value) is int for value in values):
        file.fail(f"is damaged: expected '{name}' to be whole numbers")
    return values


def _borders(file: SessionFile, state: Any, num_tokens: int) -> list[int]:
    borders = _ints(file, state, "borders")
    if not borders or sorted(borders) != borders or not 1 <= borders[0] <= borders[-1] <= num_tokens:
        file.fail("is damaged: 'borders' are not ascending positions")
    return borders


def _records(file: SessionFile, state: Any, tokens: Array, llm: LLM) -> list[StepRecord]:
    kinds = (int, str, (float, str, type(None)), (float, str, type(None)), (int, type(None)), int, bool)
    records: list[StepRecord] = []
    for row in file.get(state, "records", list):
        good = isinstance(row, list) and len(row) == len(kinds)
        good = good and all(
            type(value) in (kind if isinstance(kind, tuple) else (kind,))
            for value, kind in zip(row, kinds, strict=True)
        )
        if not good or row[1] not in (DRAWN, FORCED, GIVEN, KEPT) or not 0 <= row[0] < len(tokens):
            file.fail("is damaged: 'records' are not what they should be")
        position, kind, *numbers, seed, sample_index, altered = row
        if (records and position <= records[-1].position) or any(
            n not in ("-inf", "nan", "inf") for n in numbers if isinstance(n, str)
        ):
            file.fail("is damaged: 'records' are not what they should be")
        raw, processed = (None if n is None else float(n) for n in numbers)
        token = int(tokens[position])
        text = llm.tokenizer.token_text(token)
        records.append(StepRecord(position, token, text, kind, raw, processed, seed, sample_index, altered))
    return records
