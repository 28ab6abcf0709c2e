"""A language model small enough to list all of its outputs: each prefix has its own random distribution."""

from __future__ import annotations

import hashlib

import numpy as np

from pellucid.decoding.expansion import expansion_of

END = 0


class ToyTree:
    """An `Expander` and a `RowExpander`. vocabulary: tokens, of which END ends an output. rows: how many paths were
    opened; passes: in how many calls; opened: which; released: what was given back."""

    def __init__(self, seed=0, vocabulary=5, sharpness=1.5, end=0.0, ties=False):
        self.seed, self.vocabulary, self.sharpness, self.end, self.ties = (
            seed,
            vocabulary,
            sharpness,
            end,
            ties,
        )
        self.stop_ids = np.array([END], np.int32)
        self.opened, self.passes, self.released = [], 0, []

    def logprobs(self, path):
        """float64 [vocabulary], a pure function of the path."""
        digest = hashlib.blake2b(np.array([self.seed, *path], np.int64).tobytes(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        logits = rng.standard_normal(self.vocabulary) * self.sharpness
        logits[END] += self.end
        if self.ties:
            logits = np.round(logits)
        return logits - np.log(np.exp(logits).sum())

    def expand(self, paths, ranks):
        self._note(paths)
        return [expansion_of(self.logprobs(path), self.stop_ids, None, True, ranks) for path in paths]

    def rows(self, paths):
        self._note(paths)
        return [self.logprobs(path) for path in paths]

    def release(self, path):
        self.released.append(path)

    def _note(self, paths):
        assert len(set(paths)) == len(paths) > 0
        self.opened += paths
        self.passes += 1

    def outputs(self, most_tokens):
        """{path: log-probability} of every output of at most so many tokens; their probabilities sum to 1."""
        found, waiting = {}, [((), 0.0)]
        while waiting:
            path, score = waiting.pop()
            for token, logprob in enumerate(self.logprobs(path).tolist()):
                child = (*path, token)
                if token == END or len(child) == most_tokens:
                    found[child] = score + logprob
                else:
                    waiting.append((child, score + logprob))
        return found
