"""How long a context and how many KV blocks: decided once at load, from model, caller and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import UsageError
from pellucid.settings import CALLER, MACHINE, MODEL_FILE

if TYPE_CHECKING:
    from pellucid.types import LayerSpec

KV_FORMATS = ("f32", "f16", "bf16", "q8_0", "i16")  # as in ops/base.py
_MEMORY_SHARE = 4  # without `kv_memory`, the pool takes at most a quarter of the machine's memory


@dataclass(frozen=True)
class Capacity:
    """What the KV cache holds. Its memory is reserved, and touched only where tokens are written."""

    context_length: int  # positions of one sequence
    context_origin: str
    context_note: str
    num_blocks: int
    block_size: int
    bytes_per_token: int  # K and V of all layers

    @property
    def kv_bytes(self) -> int:
        return self.num_blocks * self.block_size * self.bytes_per_token


def kv_bytes_per_token(layers: Sequence[LayerSpec], kv_format: str) -> int:
    """K and V of one position over all layers, in bytes, padding included.

    Floats and i16: V is padded to 16 values a head; i16: K to 2, and both have a scale of 4 bytes. q8_0: K and V are
    padded to blocks of 32, of 34 bytes each.
    """
    total = 0
    for layer in layers:
        if kv_format == "q8_0":
            head = 2 * 34 * -(-layer.head_dim // 32)
        elif kv_format == "i16":
            head = 8 + 2 * (-(-layer.head_dim // 2) * 2 + -(-layer.head_dim // 16) * 16)
        else:
            head = (layer.head_dim + -(-layer.head_dim // 16) * 16) * (4 if kv_format == "f32" else 2)
        total += layer.num_kv_heads * head
    return total


def plan_capacity(
    layers: Sequence[LayerSpec],
    model_context: int,
    *,
    kv_format: str,
    context_length: int | None,
    kv_memory: int | None,
    max_sequences: int,
    block_size: int,
    origin: str = CALLER,
    machine_memory: int | None = None,
) -> Capacity:
    """The context and the pool.

    The context is the caller's, else the model's own, or as much of it as `kv_memory` (else a quarter of the
    machine's memory) holds; the result says which. The pool holds at least one whole context, and more, up to
    `max_sequences` contexts, as that memory allows: it is what prefixes are kept in for reuse.
    UsageError: the context is longer than the model's, or does not fit into the memory that was named.
    """

    def blocks(tokens: int) -> int:
        return -(-tokens // block_size)

    per_token = kv_bytes_per_token(layers, kv_format)
    per_block = per_token * block_size
    memory = machine_memory if machine_memory is not None else total_memory()
    budget = kv_memory if kv_memory is not None else memory // _MEMORY_SHARE
    fitting = budget // per_block * block_size
    if context_length is not None:
        context, where, note = context_length, origin, ""
        if context > model_context:
            raise UsageError(
                f"context_length {context} is longer than the {model_context} positions that the model was "
                f"made for; give at most {model_context}"
            )
        needs = f"a context of {context} tokens needs {blocks(context) * per_block} bytes of KV cache"
        if kv_memory is not None and fitting < context:
            raise UsageError(
                f"{needs}, but kv_memory is {kv_memory}; raise it or give context_length at most {fitting}"
            )
        if blocks(context) * per_block > memory:
            raise UsageError(f"{needs}, but this machine has {memory}; give a smaller context_length")
    elif fitting >= model_context:
        context, where, note = model_context, MODEL_FILE, ""
    else:
        context, where = fitting, MACHINE if kv_memory is None else origin
        limit = "kv_memory" if kv_memory is not None else "a quarter of the memory"
        note = f"the model's own is {model_context}; limited by {limit}; context_length asks for more"
    if context < 1:
        raise UsageError(
            f"kv_memory {budget} holds no block of {block_size} tokens; give at least {per_block} bytes"
        )
    one = blocks(context)
    num_blocks = max(one, min(budget // per_block, one * max_sequences))
    return Capacity(context, where, note, num_blocks, block_size, per_token)


def total_memory() -> int:
    """Bytes of physical memory, or the control group's limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [physical]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(name)
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def usable_cpus() -> int:
    """CPUs that this process may run on: its affinity mask, cut by the control group's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]) > 0:
        count = min(count, max(1, int(quota[0]) // int(quota[1])))
    return max(1, count)


def _read(name: str) -> str:
    try:
        return Path(name).read_text().strip()
    except OSError:
        return ""
