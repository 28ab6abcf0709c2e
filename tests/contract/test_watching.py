"""What makes watching quick changes nothing: a pass's `Watching` that serves the next passes, too, the rows that are
taken one by one, and a record that is content with the rows whose logits are wanted."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from tiny_checkpoints import make

from pellucid import LLM, Capture, Recorder, read_run
from pellucid.engine.watching import Watching
from pellucid.glass.apply import Together
from pellucid.glass.digests import DigestWatch
from pellucid.glass.store import CaptureWatch
from pellucid.models.base import models
from pellucid.ops.base import SITES

PROMPTS = [list(range(3 + i, 40 + 9 * i)) for i in range(4)]
DECODING = {"max_tokens": 40, "ignore_eos": True, "progress": False}


@pytest.fixture(scope="module", params=list(models))
def llm(request, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("watching"), request.param, "gguf", "Q8_0")
    with LLM(path, num_threads=2, prefill_chunk=16, prefix_caching=False) as loaded:
        yield loaded


def slow(monkeypatch):
    """Every pass is looked at anew, and every row goes through `take`."""
    monkeypatch.setattr(Watching, "_comes_again", lambda self, plan: False)
    monkeypatch.setattr(CaptureWatch, "row_taker", lambda self, site, layers: None)


def made_watchings(monkeypatch):
    made = []
    init = Watching.__init__

    def counted(self, *args, **more):
        made.append(1)
        init(self, *args, **more)

    monkeypatch.setattr(Watching, "__init__", counted)
    return made


def test_captures_of_a_batch_are_those_of_the_slow_way(llm, monkeypatch):
    """Sequences that come and go, some of which look at other sites, or at none."""
    captures = [
        Capture(SITES),
        Capture(("resid_post", "final"), layers=(1,)),
        None,
        Capture(positions="generated"),
    ]

    def run():
        mine = {**DECODING, "capture": captures}
        return llm.generate(PROMPTS, **mine), llm.generate(PROMPTS[:2], **{**mine, "capture": captures[:2]})

    quick_made = made_watchings(monkeypatch)
    quick = run()
    count = len(quick_made)
    slow(monkeypatch)
    quick_made.clear()
    plain = run()
    assert count < len(quick_made) / 2
    for a, b in zip([*quick[0], *quick[1]], [*plain[0], *plain[1]], strict=True):
        assert a.token_ids == b.token_ids
        if a.captured is None:
            assert b.captured is None
            continue
        assert a.captured.positions.tolist() == b.captured.positions.tolist()
        assert len(a.captured) >= DECODING["max_tokens"] - 1
        for site in a.captured.sites:
            assert np.array_equal(a.captured[site], b.captured[site]), site


def test_what_watched_goes_with_its_request(llm, monkeypatch):
    """Nothing of the engine keeps a capture's memory once its sequence has ended, and no cycle does."""
    watches = []
    init = CaptureWatch.__init__

    def noted(self, *args, **more):
        watches.append(weakref.ref(self))
        init(self, *args, **more)

    monkeypatch.setattr(CaptureWatch, "__init__", noted)
    gc.disable()
    try:
        results = llm.generate(PROMPTS[:2], **DECODING, capture=Capture())
        assert len(watches) == 2
        del results
        assert [watch() for watch in watches] == [None, None]
    finally:
        gc.enable()


def recorded(llm, path, monkeypatch, *, every_row):
    """-> (digest and sketch of every token, rows that were taken of the final hidden state)."""
    taken = []
    with monkeypatch.context() as patched:
        if every_row:
            patched.setattr("pellucid.engine.watching._content", lambda watch: False)
        take = DigestWatch.take

        def counted(self, site, layers, start, rows):
            taken.extend([start] * rows.shape[1])
            take(self, site, layers, start, rows)

        patched.setattr(DigestWatch, "take", counted)
        results = llm.generate(PROMPTS, **DECODING, record=path)
    run = read_run(path)
    tokens = [[(t.token_id, t.digest, t.sketch, t.layers) for t in branch.tokens] for branch in run.branches]
    assert [[t[0] for t in branch] for branch in tokens] == [result.token_ids for result in results]
    return tokens, len(taken)


def test_a_record_is_the_same_without_the_prompts_other_rows(llm, tmp_path, monkeypatch):
    few = recorded(llm, tmp_path / "few", monkeypatch, every_row=False)
    every = recorded(llm, tmp_path / "every", monkeypatch, every_row=True)
    assert few[0] == every[0] and all(t[1] is not None for branch in few[0] for t in branch)
    assert few[1] == len(PROMPTS) * DECODING["max_tokens"]
    assert every[1] == few[1] + sum(map(len, PROMPTS)) - len(PROMPTS)
    assert llm.replay(tmp_path / "few").equal


def test_a_record_beside_a_capture_and_with_layers(llm, tmp_path):
    """Who needs all rows gets them, and the record's digests stay what they are."""
    plain = llm.generate(PROMPTS[0], **DECODING, record=tmp_path / "plain")
    both = llm.generate(PROMPTS[0], **DECODING, record=tmp_path / "both", capture=Capture(("final", "q")))
    with Recorder(tmp_path / "layers", layers=True) as recorder:
        llm.generate(PROMPTS[0], **DECODING, record=recorder)
    runs = [read_run(tmp_path / name).branches[0].tokens for name in ("plain", "both", "layers")]
    digests = [[token.digest for token in tokens] for tokens in runs]
    assert digests[0] == digests[1] == digests[2] and None not in digests[0]
    assert all(len(token.layers) == len(llm.model.layers) for token in runs[2])
    assert both.token_ids == plain.token_ids and len(both.captured) == len(PROMPTS[0]) + 39


def test_rows_without_logits_among_passes_alike(llm, tmp_path):
    """One row a pass, the same sequence each time: the rows that bring no logits are not taken for such as do."""
    digests = {}
    with LLM(llm.info.path, num_threads=2, prefill_chunk=1, prefix_caching=False) as narrow:
        for each in (llm, narrow):
            path = tmp_path / str(len(digests))
            generation = each.begin(PROMPTS[0][:5], record=path)
            for ids in ([7, 8, 9], [10], [11, 12]):
                generation.step()
                generation.step()
                generation.append(ids)
            generation.step()
            generation.close()
            tokens = read_run(path).branches[0].tokens
            digests[each] = [(token.token_id, token.digest) for token in tokens]
    assert digests[llm] == digests[narrow]
    assert sum(digest is not None for _, digest in digests[llm]) == 7


def test_watches_tied_together_get_their_own_layers(llm):
    """Two that look at different layers of the same sites in the same passes: what each keeps is what it keeps alone,
    of layers that come one at a time (a long pass) and all at once (a replayed one)."""
    captures = [
        Capture(("resid_post", "q"), {"resid_post": (0, -1), "q": (1,)}),
        Capture(("resid_post", "q"), {"resid_post": (-2, -1), "q": (0, 1)}),
        Capture(("attn_out", "final"), {"attn_out": (1,)}),
    ]
    ids = np.random.default_rng(3).integers(0, llm.model.vocabulary_size, 30).tolist()
    added = ids[:9]

    def watched(*captures):
        stores = [CaptureWatch(each, llm.model, len(ids)) for each in captures]
        given = [[] for _ in stores]
        for store, seen in zip(stores, given, strict=True):
            store.row_taker = lambda site, layers: None  # all goes through `take`

            def take(site, layers, start, rows, store=store, seen=seen):
                seen.extend((site, layer) for layer in layers)
                CaptureWatch.take(store, site, layers, start, rows)

            store.take = take
        held = llm._open_driver().hold(ids, watch=stores[0] if len(stores) == 1 else Together(*stores))
        llm._open_driver().evaluate([held])
        for token in added:
            held.append([token])
            llm._open_driver().evaluate([held])
        held.close()
        return [store.captured([*ids, *added]) for store in stores], given

    together, given = watched(*captures)
    for capture, found, seen in zip(captures, together, given, strict=True):
        (alone,), (seen_alone,) = watched(capture)
        assert set(seen) == CaptureWatch(capture, llm.model, 1).looks
        assert sorted(seen) == sorted(seen_alone)
        assert found.positions.tolist() == alone.positions.tolist() == list(range(len(ids) + len(added)))
        for site in alone.sites:
            assert found.layers(site) == alone.layers(site)
            assert np.array_equal(found[site], alone[site]), site


def test_a_record_of_all_layers_beside_a_capture_of_one(llm, tmp_path):
    plain = llm.generate(PROMPTS[0], **DECODING, capture=Capture(layers=(1,))).captured
    for name, capture in (("alone", None), ("beside", Capture(layers=(1,)))):
        with Recorder(tmp_path / name, layers=True) as recorder:
            result = llm.generate(PROMPTS[0], **DECODING, record=recorder, capture=capture)
    assert np.array_equal(result.captured["resid_post"], plain["resid_post"])
    alone, beside = (read_run(tmp_path / name).branches[0].tokens for name in ("alone", "beside"))
    assert [(t.digest, t.layers) for t in alone] == [(t.digest, t.layers) for t in beside]
