"""Run by `guard.py` as a program of its own: compiles one grammar under limits, and follows it for a few bytes.

Reads {"grammar", "cpu": seconds, "memory": bytes} as JSON from stdin. Exit status 0: it can be compiled, or is
refused by llguidance in good order (the caller then meets the same refusal). Anything else: it took too much.
"""

from __future__ import annotations

import json
import sys
from typing import Any

STEPS = 24


def main() -> None:
    order: dict[str, Any] = json.load(sys.stdin)
    from llguidance import LLMatcher, LLTokenizer

    try:
        import resource
    except ImportError:  # no such limits on this system: the caller's clock alone ends it
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (order["cpu"], order["cpu"]))
        resource.setrlimit(resource.RLIMIT_DATA, (order["memory"], order["memory"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(tokenizer, order["grammar"], log_level=0)
    mask = bytearray((tokenizer.vocab_size + 31) // 32 * 4)
    for step in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            return
        mask[:] = matcher.compute_bitmask()[: len(mask)]
        allowed = [i for i in range(256) if mask[i // 8] >> (i % 8) & 1]
        if not allowed:
            return
        matcher.consume_token(allowed[step * 7 % len(allowed)])


if __name__ == "__main__":
    main()
