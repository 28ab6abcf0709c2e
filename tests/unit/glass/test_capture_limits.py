"""What a capture costs, where it ends, what it misses, and its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, Capture, Captured, PellucidError, UsageError
from pellucid.glass import store as store_module
from pellucid.glass.shards import CaptureFileError
from pellucid.glass.store import CaptureError, CaptureWatch, store_of, to_bfloat16

PROMPT = np.random.default_rng(4).integers(2, 320, 50).tolist()
NEW = {"max_tokens": 30, "ignore_eos": True}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make(tmp_path_factory.mktemp("capture"), "llama", "gguf", "F32")


@pytest.fixture(scope="module")
def llm(path):
    with LLM(path, num_threads=2, prefill_chunk=16) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def whole(llm):
    return llm.generate(PROMPT, **NEW, capture=Capture()).captured


# --- cost and budget --------------------------------------------------------------------------------------
def test_the_cost_is_what_is_taken(llm):
    """Told beforehand, for every kind of capture: the bytes of the pieces that are there afterwards."""
    for capture in (
        Capture(),
        Capture(("q", "k", "final"), layers=(0, -1)),
        Capture(("resid_pre", "resid_post"), {"resid_pre": (0,)}, dtype="bfloat16"),
        Capture(reduce="norm", positions="generated"),
        Capture(positions=(10, 40), dtype="float16"),
    ):
        held = llm.begin(PROMPT, **NEW, capture=capture)
        held.run()
        store = store_of(held._held.sequence.watch)
        pieces = [piece for each in store._pieces.values() for piece in each]
        computed = len(held) - 1  # the last token was chosen and not computed
        assert sum(piece.nbytes for piece in pieces) == capture.cost(llm, computed, len(PROMPT)), capture
        assert held.captured.num_bytes <= capture.cost(llm, computed, len(PROMPT))


def test_a_budget_that_cannot_hold_it_is_an_error_at_once(llm):
    needed = Capture().cost(llm, len(PROMPT) + 29)
    llm.generate(PROMPT, **NEW, capture=Capture(budget=needed))
    with pytest.raises(UsageError, match=f"take {needed} bytes, more than the budget of {needed - 1}"):
        llm.generate(PROMPT, **NEW, capture=Capture(budget=needed - 1))


def test_a_budget_met_on_the_way_ends_the_request_before_that_pass(llm):
    """Without max_tokens nobody knows beforehand. Its neighbours go on."""
    per_position = Capture().position_bytes(llm.model)
    capture = Capture(budget=64 * per_position)
    generation = llm.begin(PROMPT, ignore_eos=True, capture=capture)
    with pytest.raises(CaptureError, match="position 64 would exceed the budget"):
        generation.run()
    assert generation.captured.positions.tolist() == list(range(64))
    from pellucid.front.looking import looking_of
    from pellucid.serving.many import generate_all

    (look,) = looking_of(Capture(budget=64 * per_position, when_full="error"), (), 1)
    plain = llm.generate(PROMPT, **NEW)
    first = llm._prepare(PROMPT, None, False, False, {"ignore_eos": True}, looking=look)
    second = llm._prepare(PROMPT, None, False, False, NEW)
    with pytest.raises(PellucidError, match="would exceed the budget"):
        generate_all(llm._driver, [first, second], 8, False)
    assert llm.generate(PROMPT, **NEW).token_ids == plain.token_ids


def test_a_capture_that_is_to_stop_says_where(llm, whole):
    per_position = Capture().position_bytes(llm.model)
    found = llm.generate(PROMPT, **NEW, capture=Capture(budget=64 * per_position, when_full="stop"))
    captured = found.captured
    assert found.finish_reason == "length" and len(found.token_ids) == 30
    assert captured.positions.tolist() == list(range(64))
    assert captured.missing == ((64, 79, "the budget was spent"),)
    assert np.array_equal(captured["resid_post"], whole["resid_post"][:64])


def test_a_value_beyond_float16_is_an_error(llm, monkeypatch):
    watch = CaptureWatch(Capture(dtype="float16"), llm.model, 1)
    watch.prepare(0, 1)
    row = np.full((3, 1, llm.model.width), 70000, np.float32)
    watch.take("resid_post", (0, 1, 2), 0, row)  # amid a pass: nobody else's pass fails
    with pytest.raises(CaptureError, match='70000, beyond float16\'s 65504; give dtype="bfloat16"'):
        watch.prepare(1, 2)
    with pytest.raises(CaptureError):
        watch.captured([1, 2])


def test_bfloat16_rounds_to_nearest_even():
    x = np.random.default_rng(0).normal(size=10000).astype(np.float32)
    x = np.concatenate([x, np.float32([0.0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875])])
    bits = to_bfloat16(x)
    back = (bits.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(x)
    below = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    above = ((x.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    x, back_, below, above = (each[finite] for each in (x, back, below, above))
    assert (np.abs(back_ - x) <= np.minimum(np.abs(x - below), np.abs(above - x))).all()
    assert back[-2] == 1.0 and back[-1] == 1.015625  # halfway: to the even one
    assert np.isnan((to_bfloat16(np.float32([np.nan, 1]))[:1].astype(np.uint32) << 16).view(np.float32))[0]


# --- which positions --------------------------------------------------------------------------------------
def test_positions_layers_and_sites_are_parts_of_the_whole(llm, whole):
    for positions, rows in (("prompt", slice(0, 50)), ("generated", slice(49, 79)), ((10, 60), slice(10, 60)),
                            ((70, None), slice(70, 79))):  # fmt: skip
        part = llm.generate(PROMPT, **NEW, capture=Capture(layers=(0, 2), positions=positions)).captured
        assert part.positions.tolist() == list(range(79))[rows] and not part.missing
        assert np.array_equal(part["resid_post"], whole["resid_post"][rows][:, [0, 2]])
    norms = llm.generate(PROMPT, **NEW, capture=Capture(reduce="norm")).captured.norms()
    assert np.array_equal(norms, whole.norms())
    half = llm.generate(PROMPT, **NEW, capture=Capture(dtype="float16")).captured
    assert np.array_equal(half["resid_post"], whole["resid_post"].astype(np.float16).astype(np.float32))


def test_samples_share_the_prompts_rows_and_have_their_own(llm):
    found = llm.generate(PROMPT, **NEW, n=3, temperature=1.0, seed=2, capture=Capture())
    for sample in found.outputs:
        again = llm.trace([*PROMPT, *sample.token_ids])
        assert np.array_equal(sample.captured["resid_post"], again["resid_post"][:-1])
        assert sample.captured.token_ids.tolist() == [*PROMPT, *sample.token_ids]


def test_a_generation_by_hand_rewound_and_forked(llm):
    generation = llm.begin(PROMPT, **NEW, capture=Capture(sites=("resid_post", "final")))
    generation.run(12)
    fork = generation.fork().rewind(5).append([7, 8, 9])
    generation.rewind(20).append([3, 4, 5])
    for each in (generation, fork):
        each.peek()
        again = llm.trace(each.token_array.tolist(), Capture(sites=("resid_post", "final")))
        assert each.captured.positions.tolist() == list(range(len(each)))
        for site in ("resid_post", "final"):
            assert np.array_equal(each.captured[site], again[site])


def test_what_the_prefix_cache_had_is_computed_or_told(path, whole):
    with LLM(path, num_threads=1) as llm:
        llm.generate(PROMPT, **NEW)
        fresh = llm.generate(PROMPT, **NEW, capture=Capture())
        assert fresh.counts.reused == 0 and not fresh.captured.missing
        assert np.array_equal(fresh.captured["resid_post"], whole["resid_post"])
        reused = llm.generate(PROMPT, **NEW, capture=Capture(reuse=True))
        assert reused.counts.reused == 49
        assert reused.captured.missing == ((0, 49, "taken from the prefix cache"),)
        assert np.array_equal(reused.captured["resid_post"], whole["resid_post"][49:])
        late = llm.generate(PROMPT, **NEW, capture=Capture(positions=(20, None)))
        assert late.counts.reused == 20 and not late.captured.missing  # what is not wanted is reused
        assert np.array_equal(late.captured["resid_post"], whole["resid_post"][20:])


# --- files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_shards_are_what_memory_holds(llm, tmp_path, monkeypatch, dtype):
    capture = Capture(sites=("resid_post", "k"), dtype=dtype)
    memory = llm.generate(PROMPT, **NEW, capture=capture).captured
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1)  # a shard for every 32 positions
    files = llm.generate(
        PROMPT, **NEW, capture=Capture(sites=("resid_post", "k"), dtype=dtype, to=tmp_path / "a")
    )
    memory.save(tmp_path / "b")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 3
    for other in (files.captured, Captured.load(tmp_path / "a"), Captured.load(tmp_path / "b")):
        assert other.positions.tolist() == memory.positions.tolist() and other.missing == memory.missing
        assert other.token_ids.tolist() == memory.token_ids.tolist() and other.num_layers == 3
        for site in ("resid_post", "k"):
            assert np.array_equal(other.stored(site), memory.stored(site))
            assert other[site].dtype == np.float32 and np.array_equal(other.at(site, -1), memory.at(site, -1))
    if dtype != "bfloat16":  # which NumPy does not have
        from safetensors.numpy import load_file

        theirs = load_file(tmp_path / "b" / "shard-00000.safetensors")
        assert np.array_equal(theirs["resid_post"], memory.stored("resid_post"))


def test_samples_and_rewinding_with_files(llm, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(store_module, "SHARD_BYTES", 1)
    found = llm.generate(PROMPT, **NEW, n=2, temperature=1.0, seed=2, capture=Capture(to=tmp_path / "n"))
    for sample in found.outputs:
        again = llm.trace([*PROMPT, *sample.token_ids])["resid_post"][:-1]
        assert np.array_equal(sample.captured["resid_post"], again)
    generation = llm.begin(PROMPT, **NEW, capture=Capture(to=tmp_path / "hand"))
    generation.run()
    generation.rewind(to=10).append(PROMPT[10:], as_prompt=True)
    generation.run()
    assert np.array_equal(generation.captured["resid_post"][:79], whole["resid_post"])
    assert np.array_equal(Captured.load(tmp_path / "hand")["resid_post"][:79], whole["resid_post"])


def test_damaged_files_say_so_in_one_line(llm, tmp_path, whole):
    whole.save(tmp_path / "it")
    with pytest.raises(CaptureFileError, match="expected an empty folder"):
        whole.save(tmp_path / "it")
    with pytest.raises(CaptureFileError, match="cannot be read"):
        Captured.load(tmp_path / "nothing")
    index, shard = tmp_path / "it" / "capture.json", tmp_path / "it" / "shard-00000.safetensors"
    text = index.read_text()
    rng = np.random.default_rng(0)
    for _ in range(300):
        at = int(rng.integers(0, len(text)))
        index.write_text(text[:at] + chr(int(rng.integers(32, 127))) + text[at + 1 :])
        try:
            Captured.load(tmp_path / "it")
        except PellucidError as error:
            assert "\n" not in str(error) and str(index.parent) in str(error)
    data = json.loads(text)
    data["files"][0][0] = "../" + data["files"][0][0]
    index.write_text(json.dumps(data))
    with pytest.raises(CaptureFileError, match="names of files beside it"):
        Captured.load(tmp_path / "it")
    data = json.loads(text)
    data["layers"]["resid_post"].reverse()
    index.write_text(json.dumps(data))
    with pytest.raises(CaptureFileError, match="the layers of each site in ascending order"):
        Captured.load(tmp_path / "it")
    index.write_text("{}")
    with pytest.raises(CaptureFileError, match="is damaged: it has no 'format'"):
        Captured.load(tmp_path / "it")
    index.write_text(text)
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CaptureFileError, match="cut short") as error:
        Captured.load(tmp_path / "it")["resid_post"]
    assert str(error.value).count(str(shard)) == 1


# --- misuse -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sites": ("resid",)}, "site: expected one of resid_pre"),
        ({"sites": ()}, "sites: expected at least one"),
        ({"layers": ()}, "layers: expected at least one"),
        ({"layers": ("1",)}, "layers: expected an int"),
        ({"layers": {"q": (0,)}}, "'q' is none of the sites resid_post"),
        ({"positions": "last"}, 'positions: "all", "prompt", "generated" or'),
        ({"positions": (5, 5)}, "with 0 <= start < stop"),
        ({"reduce": "sum"}, "reduce: expected one of None, 'norm'"),
        ({"dtype": "int8"}, "dtype: expected one of 'float32'"),
        ({"budget": 0}, "budget: expected a number of bytes"),
        ({"when_full": "ignore"}, "when_full: expected one of 'error', 'stop'"),
        ({"reuse": 1}, "reuse: expected True or False"),
    ],
)
def test_wrong_captures(wrong, message):
    with pytest.raises(UsageError) as error:
        Capture(**wrong)
    assert message in str(error.value)


def test_misuse(llm, tmp_path):
    with pytest.raises(UsageError, match="layers: expected numbers from 0 to 2"):
        llm.generate(PROMPT, **NEW, capture=Capture(layers=(3,)))
    with pytest.raises(UsageError, match="expected a Capture, got str"):
        llm.generate(PROMPT, **NEW, capture="resid_post")
    with pytest.raises(UsageError, match="expected one Capture, or 2"):
        llm.generate([PROMPT, PROMPT], **NEW, capture=[Capture()])
    with pytest.raises(UsageError, match="each prompt needs a folder of its own"):
        llm.generate([PROMPT, PROMPT], **NEW, capture=Capture(to=tmp_path / "x"))
    with pytest.raises(UsageError, match="a context that slides"):
        llm.generate(PROMPT, **NEW, overflow="slide", capture=Capture())
    captured = llm.trace(PROMPT, Capture(layers=(1,)))
    with pytest.raises(UsageError, match="layer 2 of resid_post was not captured; there are: 1"):
        captured.at("resid_post", 2)
    with pytest.raises(UsageError, match="only norms were kept"):
        llm.trace(PROMPT, Capture(reduce="norm")).cosines()


def test_digests_norms_and_cosines(whole):
    import hashlib

    values, digests = whole["resid_post"], whole.digests()
    for row, layer in ((0, 0), (40, 2)):
        raw = hashlib.blake2b(values[row, layer].tobytes(), digest_size=8).digest()
        assert digests[row, layer] == int.from_bytes(raw, "little")
    assert np.allclose(whole.norms(), np.linalg.norm(values, axis=-1), rtol=1e-6)
    by_hand = [
        [np.dot(r[i], r[i + 1]) / np.linalg.norm(r[i]) / np.linalg.norm(r[i + 1]) for i in (0, 1)]
        for r in values
    ]
    assert np.allclose(whole.cosines(), by_hand, atol=1e-5)
    assert np.allclose(whole.mean(), values.mean(0), atol=1e-5)


def test_arrays_of_a_slab_share_no_byte():
    from pellucid.glass.slabs import SLAB_BYTES, Slab

    slab = Slab()
    shapes = [(3,), (5, 7), (1,), (SLAB_BYTES // 4 - 100,), (64,), (2, 2)]
    arrays = [slab.array(shape, np.float32) for shape in shapes]
    for number, array in enumerate(arrays):
        array[...] = number
    assert all((array == number).all() for number, array in enumerate(arrays))
    assert [array.shape for array in arrays] == shapes
