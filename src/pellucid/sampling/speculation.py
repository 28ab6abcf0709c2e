"""How a request speculates: a matter of time alone, its tokens are the same."""

from __future__ import annotations

from pellucid.sampling.base import parameter

MOST_DRAFTS = 64


class Speculating:
    """Declares parameters of the request itself, beside those of `params.py`."""

    speculation: str = parameter(
        "off",
        "choice",
        "guess tokens ahead and check several in one pass, the text stays the same bit for bit: auto (as many as "
        "pay, by measured times), always (max_drafts, whatever it costs), jacobi (a block of guesses, revised in "
        "each pass until it stands)",
        choices=("off", "auto", "always", "jacobi"),
    )
    max_drafts: int = parameter(
        15,
        "int",
        "most guesses of one pass; of jacobi, its block",
        minimum=1,
        maximum=MOST_DRAFTS,
        modifies=("speculation",),
    )
