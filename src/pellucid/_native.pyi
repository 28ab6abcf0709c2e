"""Made by tools/gen_stub.py from the compiled module; see native/bind/."""

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Temporaries:
    """
    Memory of arrays that live within a pass, used again when nobody holds them.
    """

    def __init__(self, limit: int) -> None:
        """limit: bytes that are kept, at most."""

    def empty(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """float32 [shape], 64-byte aligned, not cleared."""

    @property
    def num_kept(self) -> int:
        """Bytes that wait to be used again."""

class Arena:
    """
    Memory for packed weights, touched ahead of its use by a thread of its own.
    """

    def __init__(self, expected: int) -> None: ...
    @property
    def used(self) -> int: ...

def instruction_sets() -> list[str]:
    """The instruction sets that this machine runs, best first."""

def largest(arg: NDArray[np.int32], /) -> int:
    """The largest of some non-negative int32; -1 if there are none."""

def check_range(arg0: NDArray[np.int32], arg1: int, arg2: str, /) -> None:
    """ValueError unless all values are in [0, limit)."""

class Program:
    """Recorded operations over fixed buffers."""

    @property
    def num_stages(self) -> int: ...

class Runner:
    """A pool of threads and the kernels of one instruction set."""

    def __init__(self, num_threads: int, isa: str | None = None, arena: Arena | None = None) -> None: ...
    @property
    def packed_bytes(self) -> int: ...
    def allocate(
        self,
        format: str,
        outputs: int,
        inputs: int,
        bias: NDArray[np.float32] | None,
        split: bool = False,
        in_pairs: bool = False,
    ) -> Matrix:
        """in_pairs: BF16 for activations that `linear` rounds to bf16, too."""

    def pack_mapped(self, matrix: Matrix, data: NDArray[np.uint8]) -> None:
        """
        Pack all rows later, on a thread of its own; `data` lies in a file's map, whose pages are given back.
        """

    def finish_packing(self) -> None:
        """Wait for what `pack_mapped` began, and let go of its data."""

    def pack_rows(self, matrix: Matrix, first: int, data: NDArray[np.uint8]) -> None: ...
    def make_screen(self, matrix: Matrix, num_rows: int = 1) -> Screen: ...
    def screen(self, arg0: NDArray[np.float32], arg1: Screen, /) -> None: ...
    def make_peaks(self, matrix: Matrix, num_rows: int) -> Screen: ...
    def peaks(self, arg0: NDArray[np.float32], arg1: Screen, /) -> None: ...
    def settle(
        self,
        screen: Screen,
        row: int,
        temperature: float,
        min_p: float,
        seed: int,
        sample: int,
        position: int,
        stream: int,
    ) -> int:
        """
        The id that the exact logits would give; -2: a bound is not finite, so look at the logits.
        """

    @property
    def num_threads(self) -> int: ...
    @property
    def isa(self) -> str: ...
    def linear(
        self, arg0: NDArray[np.float32], arg1: Sequence[Matrix], arg2: Sequence[NDArray[np.float32]], /
    ) -> None: ...
    def gated_mlp(
        self,
        x: NDArray[np.float32],
        gate: Matrix,
        up: Matrix,
        down: Matrix,
        activation: int,
        y: NDArray[np.float32],
    ) -> None: ...
    def embed(
        self,
        arg0: str,
        arg1: NDArray[np.uint8],
        arg2: int,
        arg3: NDArray[np.int32],
        arg4: float,
        arg5: NDArray[np.float32],
        /,
    ) -> None: ...
    def rms_norm(
        self, arg0: NDArray[np.float32], arg1: NDArray[np.float32], arg2: float, arg3: NDArray[np.float32], /
    ) -> None: ...
    def layer_norm(
        self,
        arg0: NDArray[np.float32],
        arg1: NDArray[np.float32],
        arg2: NDArray[np.float32],
        arg3: float,
        arg4: NDArray[np.float32],
        /,
    ) -> None: ...
    def rope(
        self,
        arg0: NDArray[np.float32],
        arg1: NDArray[np.int32],
        arg2: NDArray[np.float32],
        arg3: NDArray[np.float32],
        arg4: int,
        arg5: bool,
        arg6: NDArray[np.float32],
        /,
    ) -> None: ...
    def glu(
        self,
        gate: NDArray[np.float32],
        up: NDArray[np.float32] | None,
        activation: int,
        out: NDArray[np.float32],
    ) -> None: ...
    def add(
        self, arg0: NDArray[np.float32], arg1: NDArray[np.float32], arg2: NDArray[np.float32], /
    ) -> None: ...
    def rows(
        self, arg0: NDArray[np.float32], arg1: NDArray[np.int32], arg2: NDArray[np.float32], /
    ) -> None: ...
    def attention(
        self,
        arg0: NDArray[np.float32],
        arg1: NDArray[np.float32],
        arg2: NDArray[np.float32],
        arg3: NDArray[Any],
        arg4: NDArray[Any],
        arg5: NDArray[np.int32],
        arg6: NDArray[np.int32],
        arg7: NDArray[np.int32],
        arg8: NDArray[np.int32],
        arg9: int,
        arg10: int,
        arg11: int,
        arg12: int,
        arg13: float,
        arg14: int,
        arg15: NDArray[np.float32],
        /,
    ) -> None: ...
    def probe_read(self, arg: int, /) -> float:
        """Bytes a second, read in order by all threads."""

    def probe_dot(self, arg: int, /) -> float:
        """
        8-bit operations a second of all threads; a product and its addition are two.
        """

    def start_recording(self) -> None: ...
    def stop_recording(self) -> Program: ...
    def run(self, arg: Program, /) -> None: ...

class Matrix:
    """A packed matrix."""

    @property
    def shape(self) -> tuple[Any, ...]: ...
    @property
    def format(self) -> str: ...
    @property
    def in_pairs(self) -> bool: ...
    @property
    def is_quantised(self) -> bool: ...
    @property
    def is_split(self) -> bool: ...
    @property
    def lower_bytes(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...

class Screen:
    """
    Bounds of a few rows of logits, and what has been computed exactly of it (native/screen.h).
    """

    @property
    def of_peaks(self) -> bool:
        """
        Whether bounds are the peaks of exact logits; else of half of the bits.
        """

    @property
    def num_panels(self) -> int:
        """Of 16 logits each."""

    @property
    def num_rescored(self) -> int:
        """Panels that the last choice computed exactly."""

    def upper(self, row: int = 0) -> NDArray[np.float32]:
        """float32 [outputs], a copy: no exact logit of the row is larger."""

class Vocabulary:
    """The pieces of a GGUF vocabulary, read in place, and their encoder."""

    def __init__(
        self,
        kind: str,
        buffer: NDArray[np.uint8],
        offset: int,
        count: int,
        types: NDArray[np.uint8] | None,
        scores: NDArray[np.float32] | None,
    ) -> None: ...
    def set_merges(self, arg0: NDArray[np.uint8], arg1: int, arg2: int, /) -> int: ...
    def set_stages(self, arg: Sequence[str], /) -> None: ...
    def set_options(
        self, *, add_space_prefix: bool, ignore_merges: bool, newline_words: bool, unknown_id: int | None
    ) -> None: ...
    def finish(self) -> None: ...
    @property
    def size(self) -> int: ...
    def find(self, arg: str, /) -> int | None: ...
    def piece(self, arg: int, /) -> builtins.bytes: ...
    def bytes(self, arg: int, /) -> builtins.bytes: ...
    def flags(self, arg: int, /) -> int: ...
    def set_flags(self, arg0: int, arg1: int, /) -> None: ...
    def ids_of_type(self, arg: int, /) -> list[int]: ...
    def encode(self, parts: list[Any], parse_special: bool) -> tuple[Any, ...]: ...
    def join(self, arg: Sequence[int], /) -> builtins.bytes: ...
    def words(self, arg: str, /) -> list[Any]: ...

def argmax(logits: NDArray[np.float32]) -> int:
    """
    The id of the largest logit (the lowest of equals); -1 if all are -inf.
    """

def log_normalizer(logits: NDArray[np.float32]) -> float:
    """log(sum(exp(logits))), float64, in one fixed order."""

def top_k(logits: NDArray[np.float32], ids: NDArray[np.int32]) -> None:
    """
    Fills ids (int32) with those of the largest logits, by logit descending, then id ascending.
    """

def keep_top_k(logits: NDArray[np.float32], k: int, all_ties: bool = False) -> None:
    """
    In place: all but the k largest become -inf; all_ties: what equals the k-th stays too.
    """

def keep_top_p(logits: NDArray[np.float32], p: float, min_keep: int = 1) -> None:
    """In place: all but the nucleus of probability p become -inf."""

def keep_min_p(logits: NDArray[np.float32], p: float, min_keep: int = 1) -> None:
    """In place: probabilities below p times the largest become -inf."""

def philox(counter: NDArray[np.uint32], key: NDArray[np.uint32], out: NDArray[np.uint32]) -> None:
    """Philox4x32-10."""

def gumbel(
    seed: int, sample: int, position: int, stream: int, ids: NDArray[np.int32], out: NDArray[np.float64]
) -> None:
    """Fills out (float64) with the keyed Gumbel noise of each id."""

def gumbel_argmax(logits: NDArray[np.float32], seed: int, sample: int, position: int, stream: int) -> int:
    """
    argmax of logits + keyed noise, lowest id of equals: one draw of softmax(logits); -1 if all are -inf.
    """

def entropy(logits: NDArray[np.float32]) -> tuple[float, float]:
    """(log(sum(exp(logits))), the entropy of the softmax in nats), float64."""

def probabilities(logits: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    """Fills out (float64) with softmax(logits)."""

def keep_epsilon(
    logits: NDArray[np.float32], epsilon: float, min_keep: int = 1, all_ties: bool = False
) -> None:
    """In place: probabilities below epsilon become -inf."""

def keep_eta(logits: NDArray[np.float32], epsilon: float, min_keep: int = 1, all_ties: bool = False) -> None:
    """
    In place: probabilities below min(epsilon, sqrt(epsilon) exp(-entropy)) become -inf.
    """

def keep_surprise(logits: NDArray[np.float32], bits: float) -> None:
    """In place: what surprises by more than `bits` becomes -inf."""

def keep_top_n_sigma(logits: NDArray[np.float32], factor: float) -> None:
    """
    In place: what is further than `factor` standard deviations below the largest becomes -inf.
    """

def keep_typical(logits: NDArray[np.float32], p: float, min_keep: int = 1, all_ties: bool = False) -> None:
    """
    In place: all but the locally typical set of probability p become -inf.
    """

def exclude_top(logits: NDArray[np.float32], threshold: float, min_keep: int = 1) -> None:
    """
    In place: of the probabilities of at least threshold only the smallest stays.
    """

def aim_at_probability(logits: NDArray[np.float32], target: float) -> None:
    """
    In place: 5 - 10 d^2 / (1 + d) with d = |probability - target| / 0.3; -inf stays.
    """

def penalize(
    logits: NDArray[np.float32],
    ids: NDArray[np.int32],
    counted_from: int,
    repetition: float,
    presence: float,
    frequency: float,
) -> None:
    """
    In place: repetition for what occurs in ids; presence and frequency for what occurs from counted_from on.
    """

def suffix_matches(ids: NDArray[np.int32], longest: int, lengths: NDArray[np.int32]) -> None:
    """
    Fills lengths[i], all but the last, with the longest common suffix of ids[:i + 1] and ids.
    """

def penalize_repeats(
    logits: NDArray[np.float32],
    ids: NDArray[np.int32],
    longest: int,
    allowed: int,
    multiplier: float,
    base: float,
    spared: NDArray[np.int32],
) -> None:
    """
    In place: what prolongs a match of m >= allowed tokens loses multiplier * base^(m - allowed); not ids in spared.
    """

def exp(x: float) -> float:
    """
    exp(x) from +, -, *, / alone: the same bits on every machine. -700 < x <= 700.
    """

def log(x: float) -> float:
    """
    log(x) from +, -, *, / alone: the same bits on every machine. 1e-300 < x <= 1e300.
    """

def dequantize(label: str, data: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """
    Blocks of a weight format to float32: data uint8 [bytes] -> out float32 [values], sizes checked.
    """

def weight_formats() -> list[tuple[str, int, int]]:
    """[(label, values in a block, bytes of a block)]"""

def scan_strings(data: NDArray[np.uint8], offset: int, count: int) -> tuple[int, int]:
    """
    Walk `count` length-prefixed strings: (byte after the last one read, how many fit into data).
    """

def string_spans(
    data: NDArray[np.uint8], offset: int, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[int, int]:
    """As scan_strings, and fills starts and lengths, int64 [count]."""
