"""Report pages of invented tokens, and a reader of the HTML that sees what a browser would take as markup."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from pellucid.report.page_data import PROMPT, BranchView, Candidate, LensCell, Report, TokenView
from pellucid.sampling.record import ChoiceRecord, StageRecord
from pellucid.settings import Setting

# What a page must not take as anything but text.
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--",
    "-->",
    "<!-- <script>",
    "]]>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "</span></div></main>",
    "</style><style>*{display:none}",
    "</title><base href=//example.org>",
    "&lt;b&gt;&amp;&#x3c;",
    "javascript:alert(1)",
    "\u202eevil\u202c",
    "\u2066\u2067\u200f",
    "\x00\x01\x1b[31m\x7f\x85",
    "\ud800",
    "\ufffe\uffff\ufdd0",
    "\u2028\u2029",
    "a\r\nb\tc",
    "\u0301",
    "\u200d",
    "",
    "   ",
    "{{7*7}}${7*7}",
    "\\u003cscript\\u003e",
]


def make_choice(rng: random.Random, position: int, token_id: int) -> ChoiceRecord:
    stages = tuple(
        StageRecord(
            name, rng.randrange(50000), rng.randrange(1, 50000), rng.random(), 3, name == "top_p", 1.5, 7
        )
        for name in ("penalties", "temperature", "top_p")
    )
    alone = rng.random() < 0.1
    return ChoiceRecord(
        position=position,
        token_id=token_id,
        raw_logit=12.5,
        raw_rank=2,
        raw_logprob=-1.0,
        stages=stages,
        num_left=1 if alone else rng.randrange(2, 50),
        logit=13.25,
        logprob=-rng.random(),
        noise=rng.gauss(0, 1),
        score=14.5,
        runner_up=None if alone else 9,
        runner_up_logit=-math.inf if alone else 12.0,
        runner_up_noise=0.25,
        margin=math.inf if alone else 3 * rng.random(),
    )


def make_token(
    rng: random.Random, position: int, text: str, kind: str, words: Sequence[str], num_layers: int
) -> TokenView:
    logprob = -rng.expovariate(0.5)
    rank = rng.randrange(2000)
    drawn = kind == "drawn"
    top = tuple(
        Candidate(
            each, rng.choice(words), -rng.random() * 9, rng.choice([-0.5, -math.inf]) if drawn else None
        )
        for each in range(8)
    )
    layers = tuple(
        LensCell(rng.randrange(50000), -rng.expovariate(0.2), rng.choice(words), -rng.random())
        for _ in range(num_layers)
    )
    if position == 0:
        return TokenView(0, 1, text, kind)
    return TokenView(
        position=position,
        token_id=rng.randrange(250000),
        text=text,
        kind=kind,
        logprob=logprob,
        rank=rank,
        entropy=4 * rng.random(),
        top=top,
        choice=make_choice(rng, position, 5) if drawn else None,
        runner_up=rng.choice(words) if drawn else None,
        stage_tops=tuple(rng.choice(words) for _ in range(3)) if drawn else (),
        layers=layers,
        seconds=rng.random() / 50 if drawn else None,
        note=f"Note on {text}." if drawn else "",
        flags=("near tie",) if drawn and rng.random() < 0.2 else (),
    )


def make_report(
    texts: Sequence[str],
    *,
    num_prompt: int = 2,
    num_layers: int = 4,
    forks: Sequence[tuple[int, int]] = (),
    name: str = "run",
    seed: int = 0,
) -> Report:
    """A root branch with these texts, and a fork (parent, at) for each of `forks` with the last texts again."""
    rng = random.Random(seed)
    words = list(texts) or ["word"]

    def tokens(start: int, what: Sequence[str]) -> tuple[TokenView, ...]:
        return tuple(
            make_token(rng, start + i, text, PROMPT if start + i < num_prompt else "drawn", words, num_layers)
            for i, text in enumerate(what)
        )

    branches = [BranchView(name, tokens(0, texts), ended="length")]
    for parent, at in forks:
        branches.append(BranchView(f"{name} fork", tokens(at, texts[at:]), parent, at))
    settings = (
        Setting("seed", 7, "caller"),
        Setting("stop", (name,), "command line", f"note {name}"),
        Setting("top_k", 0, "default"),
    )
    return Report(
        title=name,
        branches=tuple(branches),
        facts=(("model", name), ("prompt", f"{num_prompt} tokens")),
        settings=settings,
        timings=(("total", 1.25), (name, 0.002)),
        layer_names=("embed", *map(str, range(num_layers - 1))) if num_layers else (),
        notes=(name,),
    )


class Page(HTMLParser):
    """elements: (tag, attributes) in order. text_of: the text within the elements of a class or tag."""

    VOID = frozenset(["meta", "link", "img", "base", "br", "input"])

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.spans: list[str] = []  # text of the tokens
        self._open: list[str] = []
        self._strip: int | None = None
        self._script: dict[str, str | None] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag in self.VOID:
            return
        self._open.append(tag)
        if found.get("class") == "strip":
            self._strip = len(self._open)
        elif self._strip is not None and tag == "span":
            self.spans.append("")
        if tag == "script":
            self._script = found
            self.scripts.append((found, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open[-1] != tag:
            self._open.pop()
        if self._open:
            if self._strip == len(self._open):
                self._strip = None
            self._open.pop()
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[-1] = (self._script, self.scripts[-1][1] + data)
        elif self._strip is not None and self._open[-1] == "span":
            self.spans[-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    @property
    def data(self) -> Any:
        return json.loads(next(text for found, text in self.scripts if found.get("id") == "data"))
