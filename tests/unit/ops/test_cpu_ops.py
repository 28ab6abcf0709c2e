"""Every native operation against its NumPy twin within a stated bound, and every instruction set bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, _native
from pellucid.capacity import KV_FORMATS
from pellucid.errors import UsageError
from pellucid.ops.cpu import EMBED_ROWS, CpuOps, RopeTable
from pellucid.ops.reference import ReferenceOps
from pellucid.types import Batch, LayerSpec
from pellucid.weights.tensor import Format, Tensor

ISAS = _native.instruction_sets()
REFERENCE = ReferenceOps()

# Where a block keeps its float16 scales, in bytes from its beginning.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


def random_tensor(weight_format: Format, rows: int, width: int, seed: int = 0) -> Tensor:
    """Random bytes, but sane scales: every bit pattern of the quantised values comes up."""
    rng = np.random.default_rng(seed)
    if weight_format.is_float:
        values = rng.normal(size=(rows, width)).astype(np.float32)
        if weight_format is Format.F16:
            raw = values.astype(np.float16).view(np.uint8)
        elif weight_format is Format.BF16:
            raw = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            raw = values.view(np.uint8)
        return Tensor("w", (rows, width), weight_format, np.ascontiguousarray(raw).reshape(-1))
    blocks = rows * width // weight_format.block_size
    raw = rng.integers(0, 256, (blocks, weight_format.block_bytes), dtype=np.uint8)
    for at in SCALES[weight_format.label]:
        raw[:, at : at + 2] = (
            rng.uniform(0.002, 0.02, blocks).astype(np.float16).view(np.uint8).reshape(-1, 2)
        )
    return Tensor("w", (rows, width), weight_format, raw.reshape(-1))


@pytest.mark.parametrize("ops", [REFERENCE, CpuOps(2)], ids=lambda ops: ops.name)
def test_logits_are_of_the_rows_asked_for(ops: ReferenceOps | CpuOps) -> None:
    x = np.random.default_rng(2).normal(size=(6, 64)).astype(np.float32)
    head = ops.head(random_tensor(Format.Q8_0, 50, 64))
    ids, table = np.zeros(6, np.int32), np.zeros((1, 1), np.int32)
    every = Batch(ids, ids, ids, ids, table, np.arange(6, dtype=np.int32))
    whole = ops.logits(x, head, every)
    assert np.array_equal(whole, ops.linear(x, head))
    some = replace(every, head_rows=np.array([4, 1], np.int32))
    assert np.array_equal(ops.logits(x, head, some), whole[[4, 1]])


@pytest.mark.parametrize("weight_format", list(Format), ids=lambda f: f.label)
@pytest.mark.parametrize("isa", ISAS)
def test_linear_is_its_twin(isa: str, weight_format: Format) -> None:
    ops = CpuOps(2, isa)
    width = 768
    rng = np.random.default_rng(1)
    x = rng.normal(size=(19, width)).astype(np.float32)
    x[3] = 0.0
    for outputs in (1, 40, 67):
        weight = random_tensor(weight_format, outputs, width)
        bias = rng.normal(size=outputs).astype(np.float32)
        got = ops.linear(x, ops.matrix(weight, bias))
        want = REFERENCE.linear(x, REFERENCE.matrix(weight, bias))
        # float32 chains: each of a row's terms is rounded once, so the error is bounded by the terms' magnitude
        magnitude = np.abs(x) @ np.abs(weight.dequantize()).T + np.abs(bias)
        assert np.all(np.abs(got - want) <= 4e-6 * magnitude)


@pytest.mark.parametrize(
    ("weight_format", "bf16"),
    [(Format.BF16, True), *((weight_format, False) for weight_format in Format)],
    ids=lambda x: getattr(x, "label", x),
)
def test_linear_has_one_result(weight_format: Format, bf16: bool) -> None:
    """Whatever the instruction set, the threads, the number of rows, and the matrices that share the input."""
    weight, other = random_tensor(weight_format, 131, 512), random_tensor(Format.Q8_0, 50, 512)
    x = np.random.default_rng(2).normal(size=(21, 512)).astype(np.float32)
    first = CpuOps(1, "scalar", bf16_activations=bf16)
    want = first.linear(x, first.matrix(weight))
    for isa in ISAS:
        for threads in (1, 2, 3):
            ops = CpuOps(threads, isa, bf16_activations=bf16)
            packed, also = ops.matrix(weight), ops.matrix(other)
            for rows in (1, 2, 7, 8, 9, 21):
                assert np.array_equal(ops.linear(x[:rows], packed), want[:rows])
            together = ops.linears(x, also, packed)
            assert np.array_equal(together[1], want)
            assert np.array_equal(together[0], ops.linear(x, also))


def bf16_products(x: np.ndarray, w: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x [rows, inputs], w [outputs, inputs], both of bf16 values: in each pair of inputs the odd one first, every
    sum rounded to float32. Exact where a sum of float64 is: values of one size."""
    sums = np.zeros((len(x), len(w)), np.float32)
    for k in range(0, x.shape[1], 2):
        for i in (k + 1, k):
            if i < x.shape[1]:
                products = x[:, i, None].astype(np.float64) * w[:, i].astype(np.float64)
                sums = (sums + products).astype(np.float32)
    return sums + bias


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("inputs", [1, 6, 75, 264, 521])
def test_bf16_products_are_chains_of_float32(isa: str, inputs: int) -> None:
    """Against NumPy, bit for bit; ties are rounded to even."""
    rng = np.random.default_rng(inputs)
    x, w = (
        np.where(np.abs(v) < 2**-6, 0, v).astype(np.float32)
        for v in (rng.normal(size=(26, inputs)), rng.normal(size=(70, inputs)))
    )
    x[0] = (x[0].view(np.uint32) & np.uint32(0xFFFF0000) | np.uint32(0x8000)).view(np.float32)  # halfway
    bits = x.view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    bias = rng.normal(size=70).astype(np.float32)
    raw = np.ascontiguousarray(w.view(np.uint32) >> 16, np.uint16)
    weight = Tensor("w", w.shape, Format.BF16, raw.view(np.uint8).reshape(-1))
    want = bf16_products(rounded, weight.dequantize(), bias)
    for threads in (1, 2):
        ops = CpuOps(threads, isa, bf16_activations=True)
        packed = ops.matrix(weight, bias)
        assert packed.in_pairs and ops.num_bf16_products == 1
        for rows in (1, 3, 12, 26):
            got = ops.linear(x[:rows], packed)
            assert np.array_equal(got.view(np.uint32), want[:rows].view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
def test_bf16_products_are_their_twin(isa: str) -> None:
    rng = np.random.default_rng(5)
    ops, reference = CpuOps(2, isa, bf16_activations=True), ReferenceOps(bf16_activations=True)
    weight, bias = random_tensor(Format.BF16, 67, 333), rng.normal(size=67).astype(np.float32)
    x = rng.normal(size=(19, 333)).astype(np.float32)
    x[3], x[4, ::3], x[5, 7] = 0.0, 2.0**-57, -0.0
    got, want = (each.linear(x, each.matrix(weight, bias)) for each in (ops, reference))
    assert ops.num_bf16_products == reference.num_bf16_products == 1
    magnitude = np.abs(x) @ np.abs(weight.dequantize()).T + np.abs(bias)
    assert np.all(np.abs(got - want) <= 4e-6 * magnitude)
    exact = REFERENCE.linear(x, REFERENCE.matrix(weight, bias))
    assert np.all(np.abs(got - exact) <= 2.0**-8 * magnitude) and np.any(got != exact)
    small = random_tensor(Format.BF16, 2, 8)
    tiny = np.full((1, 8), 2.0**-57, np.float32)  # counts as zero
    for each in (ops, reference):
        assert not each.linear(tiny, each.matrix(small)).any()


@pytest.mark.parametrize("weight_format", [f for f in Format if f is not Format.BF16], ids=lambda f: f.label)
def test_bf16_activations_are_for_bf16_weights(weight_format: Format) -> None:
    weight = random_tensor(weight_format, 33, 256)
    x = np.random.default_rng(8).normal(size=(5, 256)).astype(np.float32)
    for kind in (CpuOps, ReferenceOps):
        plain, rounding = kind(), kind(bf16_activations=True)
        same = rounding.linear(x, rounding.matrix(weight)), plain.linear(x, plain.matrix(weight))
        assert np.array_equal(*same) and rounding.num_bf16_products == 0


def test_only_bf16_lies_in_pairs() -> None:
    with pytest.raises(ValueError, match="only BF16 lies in pairs"):
        CpuOps(1).runner.allocate("F16", 4, 4, None, False, True)


def test_a_large_matrix_is_packed_in_parts() -> None:
    """More rows than fit one part of the file (2 MiB), the last one incomplete."""
    weight = random_tensor(Format.F32, 3 * 1024 + 5, 1024)
    ops = CpuOps(2)
    x = np.eye(3, 1024, k=7, dtype=np.float32)
    assert np.array_equal(ops.linear(x, ops.matrix(weight)), weight.dequantize()[:, 7:10].T)


@pytest.mark.parametrize("isa", ISAS)
def test_rowwise_operations_are_their_twins(isa: str) -> None:
    ops = CpuOps(2, isa)
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(9, 144)).astype(np.float32) * 4 for _ in range(2))
    weight, bias = (rng.normal(size=144).astype(np.float32) for _ in range(2))
    positions = rng.integers(0, 500, 9).astype(np.int32)
    inv_freq = (10000.0 ** (-np.arange(8) / 8)).astype(np.float32)
    pairs = [
        (ops.rms_norm(x, weight, 1e-5), REFERENCE.rms_norm(x, weight, 1e-5)),
        (ops.rms_norm(x, weight[:48], 1e-5), REFERENCE.rms_norm(x, weight[:48], 1e-5)),
        (ops.layer_norm(x, weight, bias, 1e-5), REFERENCE.layer_norm(x, weight, bias, 1e-5)),
        (ops.add(x, y), REFERENCE.add(x, y)),
        (ops.add(x, weight), REFERENCE.add(x, weight)),
        (ops.rows(x, positions % 9), REFERENCE.rows(x, positions % 9)),
    ]
    for interleaved in (False, True):
        tables = ops.rope_table(inv_freq, 512), REFERENCE.rope_table(inv_freq, 512)
        pairs.append(
            (
                ops.rope(x, positions, tables[0], 24, interleaved),
                REFERENCE.rope(x, positions, tables[1], 24, interleaved),
            )
        )
    for name in ("silu", "gelu_tanh", "gelu"):
        pairs.append((ops.glu(x, y, name), REFERENCE.glu(x, y, name)))
        pairs.append((ops.activation(x, name), REFERENCE.activation(x, name)))
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("gate", "up", "down", "width", "middle"),
    [
        ("Q5_0", "Q5_0", "Q6_K", 96, 256),
        ("Q4_1", "Q8_0", "Q4_0", 64, 160),
        ("F16", "Q4_0", "F32", 32, 75),  # the middle is not rounded, and ends within a strip
        ("F32", "BF16", "Q5_1", 21, 96),
    ],
)
def test_gated_mlp_is_its_operations_one_by_one(
    isa: str, gate: str, up: str, down: str, width: int, middle: int
) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(size=(150, width)).astype(np.float32)
    x[5, 3] = np.nan  # spoils its own row alone
    tensors = [
        random_tensor(Format[gate], middle, width, 1),
        random_tensor(Format[up], middle, width, 2),
        random_tensor(Format[down], 40, middle, 3),
    ]
    biases = [rng.normal(size=len(t)).astype(np.float32) for t in (range(middle), range(middle), range(40))]
    one = CpuOps(1, "scalar")
    g, u, d = (one.matrix(t, b) for t, b in zip(tensors, biases, strict=True))
    for name in ("silu", "gelu_tanh", "gelu"):
        want = one.linear(one.glu(one.linear(x, g), one.linear(x, u), name), d)
        assert np.isnan(want[5]).all() and np.isfinite(np.delete(want, 5, axis=0)).all()
        for threads in (1, 2, 3):
            ops = CpuOps(threads, isa)
            matrices = [ops.matrix(t, b) for t, b in zip(tensors, biases, strict=True)]
            for rows in (0, 1, 2, 9, 47, 64, 65, 150):
                got = ops.gated_mlp(x[:rows], *matrices, name)
                np.testing.assert_array_equal(got.view(np.uint32), want[:rows].view(np.uint32))


def test_gated_mlp_refuses_what_does_not_fit() -> None:
    ops = CpuOps(1)
    small, large = (ops.matrix(random_tensor(Format.Q8_0, n, 64)) for n in (32, 64))
    x, y = np.zeros((2, 64), np.float32), np.zeros((2, 64), np.float32)
    split = ops.head(random_tensor(Format.Q8_0, 64, 64))
    for args in [
        (x[:, :32].copy(), large, large, large, 0, y),
        (x, large, small, large, 0, y),
        (x, small, small, large, 0, y),
        (x, large, large, large, 3, y),
        (x, large, large, large, 0, y[:1]),
        (x, large, large, split, 0, y),
    ]:
        with pytest.raises(ValueError, match="gated_mlp"):
            ops.runner.gated_mlp(*args)


@pytest.mark.parametrize("label", ["F32", "Q4_K", "Q8_0", "BF16"])
def test_embed_reads_rows_of_the_file(label: str) -> None:
    weight = random_tensor(Format[label], 50, 256)
    ids = np.array([49, 0, 7, 7], np.int32)
    got = CpuOps(1).embed(CpuOps(1).embedding(weight), ids, 3.5)
    assert np.array_equal(got, weight.dequantize()[ids] * np.float32(3.5))


def test_pages_of_embeddings_go_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every EMBED_ROWS rows, whether a prompt read them, a pass that is seen for the first time, or a replay."""
    released = []
    monkeypatch.setattr(Tensor, "release", lambda self: released.append(self.name))
    with LLM(make(tmp_path, "llama", "gguf", "Q8_0"), num_threads=1) as llm:
        released.clear()
        llm.generate([[5] * (2 * EMBED_ROWS + 1)], max_tokens=1, ignore_eos=True)
        assert len(released) == 2
        llm.generate([[7]], max_tokens=3 * EMBED_ROWS, ignore_eos=True)
        assert len(released) == 5 and len(set(released)) == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "window"), [(4, 1, 64, None), (6, 3, 20, 50), (10, 1, 16, 300)]
)
def test_attention_is_its_twin(
    isa: str, kv_format: str, heads: int, kv_heads: int, head_dim: int, window: int | None
) -> None:
    """Two sequences of different lengths, blocks in any order, in chunks; the twin sees all at once."""
    rng = np.random.default_rng(4)
    lengths, block_size = (330, 41), 32
    specs = [LayerSpec(kv_heads, head_dim, window)]
    order = rng.permutation(16).astype(np.int32)
    tables = np.stack([order[:12], np.append(order[12:14], np.zeros(10, np.int32))]).astype(np.int32)
    q, k, v = (
        [rng.normal(size=(n, h * head_dim)).astype(np.float32) for n in lengths]
        for h in (heads, kv_heads, kv_heads)
    )

    def run(ops: CpuOps | ReferenceOps, chunk: int) -> list[np.ndarray]:
        cache = ops.kv_cache(specs, 16, block_size, kv_format)
        out = [np.zeros_like(part) for part in q]
        for start in range(0, max(lengths), chunk):
            parts = [(i, np.arange(start, min(start + chunk, n))) for i, n in enumerate(lengths) if start < n]
            positions = np.concatenate([p for _, p in parts]).astype(np.int32)
            ids = np.concatenate([np.full(len(p), i) for i, p in parts]).astype(np.int32)
            slots = tables[ids, positions // block_size] * block_size + positions % block_size
            batch = Batch(positions * 0, positions, slots.astype(np.int32), ids, tables, positions[:0])
            rows = [np.concatenate([x[i][p] for i, p in parts]) for x in (q, k, v)]
            result = ops.attention(*rows, cache, 0, batch, 0.2)
            for i, p in parts:
                out[i][p], result = result[: len(p)], result[len(p) :]
        return out

    want = run(REFERENCE, 400)
    one = run(CpuOps(1, isa), 400)
    # 11 rows from position 253: rows that see one run of 256 and rows that see two, in one tile
    for chunk, threads in ((400, 3), (100, 2), (11, 1), (11, 2), (1, 2)):
        for a, b in zip(one, run(CpuOps(threads, isa), chunk), strict=True):
            assert np.array_equal(a, b)
    # The twin does not round the weights of i16: half of 1/16383 of the largest of 64. The kernel test has the bound.
    tolerance = 1e-3 if kv_format == "i16" else 1e-5
    for a, b in zip(one, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance)


def test_a_rotation_table_grows_to_the_same_values() -> None:
    inv_freq = (10000.0 ** (-np.arange(16) / 16)).astype(np.float32)
    one_by_one, at_once = RopeTable(inv_freq, 1000, 1.0), RopeTable(inv_freq, 1000, 1.0)
    at_once.cover_up_to(999)
    for position in (0, 3, 255, 256, 700, 999):
        one_by_one.cover(np.array([position], np.int32))
        assert np.array_equal(one_by_one.cosines[: position + 1], at_once.cosines[: position + 1])
        assert np.array_equal(one_by_one.sines[: position + 1], at_once.sines[: position + 1])


def test_wrong_shapes_are_refused() -> None:
    ops = CpuOps(1)
    weight = ops.matrix(random_tensor(Format.F32, 4, 8))
    x = np.zeros((2, 8), np.float32)
    with pytest.raises(ValueError, match="inputs"):
        ops.linear(np.zeros((2, 9), np.float32), weight)
    with pytest.raises(ValueError, match="vocabulary"):
        ops.embed(ops.embedding(random_tensor(Format.F32, 4, 8)), np.array([4], np.int32))
    with pytest.raises(ValueError, match="outside x"):
        ops.rows(x, np.array([2], np.int32))
    with pytest.raises(ValueError, match="instruction set"):
        CpuOps(1, "sse2")
    with pytest.raises(UsageError, match="kv_format"):
        ops.kv_cache([LayerSpec(1, 16)], 1, 32, "q3")
    with pytest.raises(UsageError, match="block_size"):
        ops.kv_cache([LayerSpec(1, 16)], 1, 24, "f32")


@pytest.mark.parametrize("isa", ISAS)
def test_tiny_and_broken_inputs(isa: str) -> None:
    """Subnormal blocks are zeros; a row with NaN or infinity gives NaN, and its neighbours are unharmed."""
    ops = CpuOps(1, isa)
    weight = random_tensor(Format.Q8_0, 20, 64)
    packed = ops.matrix(weight)
    x = np.random.default_rng(5).normal(size=(5, 64)).astype(np.float32)
    want = ops.linear(x, packed)
    x[1] = np.where(np.arange(64) < 32, np.float32(1e-41), x[1])
    x[2, 40], x[3, 3] = np.nan, np.inf
    got = ops.linear(x, packed)
    assert np.array_equal(got[[0, 4]], want[[0, 4]])
    rest = x[1:2].copy()
    rest[:, :32] = 0
    assert np.array_equal(got[1:2], ops.linear(rest, packed))
    assert np.isnan(got[2:4]).all()
