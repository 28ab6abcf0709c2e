"""A model whose logits are a pure function of the token prefix AS READ THROUGH THE CACHE AND THE BLOCK TABLE.

Its "keys and values" are the token ids themselves: one wrong block, slot, copy or position changes the
prefix that a later row sees, and so its logits. `reference` computes the same choices from the plain list
of tokens.
"""

from __future__ import annotations

import hashlib

import numpy as np

from pellucid.sampling.sampler import Sampler

VOCABULARY = 61
CONTEXT = 512


def logits_of(tokens):
    """float32 [VOCABULARY], different for every prefix, with exact ties now and then."""
    digest = hashlib.blake2b(np.asarray(tokens, np.int32).tobytes(), digest_size=16).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    return np.round(rng.standard_normal(VOCABULARY) * 3, 1).astype(np.float32)


class ToyCache:
    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.tokens = np.full((num_blocks, block_size), -1, np.int64)
        self.num_bytes = self.tokens.nbytes

    def copy_blocks(self, pairs):
        for source, destination in pairs:
            self.tokens[destination] = self.tokens[source]


class ToyOps:
    name = "toy"

    def kv_cache(self, specs, num_blocks, block_size, kv_format):
        return ToyCache(num_blocks, block_size)


class ToyModel:
    architecture = "toy"
    layers = ()
    width = 1
    vocabulary_size = VOCABULARY

    def __init__(self, context_length=CONTEXT):
        self.context_length = context_length
        self.num_passes = self.num_rows = self.max_rows = 0

    def __call__(self, batch, cache):
        check(batch)
        self.num_passes += 1
        self.num_rows += batch.num_rows
        self.max_rows = max(self.max_rows, batch.num_rows)
        cache.tokens.reshape(-1)[batch.slots] = batch.token_ids
        out = np.empty((len(batch.logit_rows), VOCABULARY), np.float32)
        for i, row in enumerate(batch.logit_rows):
            position = int(batch.positions[row])
            blocks = batch.block_tables[batch.sequence_ids[row]][: position // cache.block_size + 1]
            out[i] = logits_of(cache.tokens[blocks].reshape(-1)[: position + 1])
        return out


def check(batch):
    """What the contract says of a Batch."""
    rows = batch.num_rows
    for array in (batch.token_ids, batch.positions, batch.slots, batch.sequence_ids, batch.logit_rows):
        assert array.dtype == np.int32 and array.flags.c_contiguous
    assert batch.block_tables.dtype == np.int32 and batch.block_tables.flags.c_contiguous
    assert len(batch.positions) == len(batch.slots) == len(batch.sequence_ids) == rows > 0
    assert len(np.unique(batch.slots)) == rows, "two rows write one slot"
    assert np.all(np.diff(batch.logit_rows) > 0)
    same = np.diff(batch.sequence_ids) == 0
    assert np.all(np.diff(batch.sequence_ids)[~same] == 1) and batch.sequence_ids[0] == 0
    assert np.all(np.diff(batch.positions)[same] == 1)


class PlainHistory:
    companion_logits = None

    def __init__(self, prompt, sample_index, stop_ids):
        self.tokens = list(prompt)
        self.num_prompt = len(prompt)
        self.num_generated = self.num_dropped = 0
        self.sample_index = sample_index
        self.stop_ids = np.array(sorted(stop_ids), np.int32)

    @property
    def token_ids(self):
        return np.array(self.tokens, np.int32)


def reference(request, context_length, sample_index=0):
    """([token ids], finish reason) of one sample, alone, with no engine."""
    params = request.params
    eos = set() if params.ignore_eos else set(request.stop_ids)
    history = PlainHistory(request.prompt_ids.tolist(), sample_index, eos | set(params.stop_token_ids))
    sampler = Sampler(params, request.seed)
    out = []
    while True:
        token = sampler.choose(history, logits_of(history.tokens)).token_id
        out.append(token)
        history.tokens.append(token)
        history.num_generated += 1
        if token in eos:
            return out, "eos"
        if token in params.stop_token_ids:
            return out, "stop"
        if params.max_tokens is not None and len(out) >= params.max_tokens:
            return out, "length"
        if len(history.tokens) >= context_length:
            if params.overflow != "slide":
                return out, "context"
            keep = params.slide_keep
            drop = (context_length - keep) // 2 if params.slide_drop is None else params.slide_drop
            history.num_prompt -= len(range(keep, min(history.num_prompt, keep + drop)))
            history.num_dropped += drop
            del history.tokens[keep : keep + drop]


def drain(engine, *, max_steps=20000):
    """{(request id, sample): ([token ids], finish reason)} of everything in the engine, and all its
    events."""
    outputs, events = {}, []
    steps = 0
    while engine.has_work:
        steps += 1
        assert steps < max_steps, "the engine makes no progress"
        for event in engine.step():
            events.append(event)
            key = (event.request_id, event.sample_index)
            tokens, reason = outputs.setdefault(key, ([], None))
            assert reason is None, "an event after the last one"
            if event.token_id is not None:
                tokens.append(event.token_id)
            outputs[key] = (tokens, event.finish_reason)
    assert all(reason is not None for _, reason in outputs.values())
    check_idle(engine)
    return outputs, events


def check_idle(engine):
    """Nothing leaked: no block is held, free and cached ones are all there are."""
    pool = engine.pool
    assert pool.num_used == 0 and pool.num_free + pool.num_cached == pool.num_blocks
    assert all(pool.references(block) == 0 for block in range(pool.num_blocks))
    assert not engine._live and engine.scheduler.num_preemptions >= 0
