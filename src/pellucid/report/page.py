"""One self-contained page of HTML from a `Report`: no network, no dependency, safe whatever a token's text is.

Style and script stand in the page; the content security policy names both by hash and allows nothing else, so that
even markup that got past the escaping could neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from pellucid.report.curves import curves
from pellucid.report.heatmap import heatmap
from pellucid.report.html import data_script, escape, number, show
from pellucid.report.page_data import BranchView, Report
from pellucid.report.page_json import page_json
from pellucid.report.strip import legend, strip, token_table
from pellucid.report.tree import tree
from pellucid.settings import DEFAULT, show_value


def render(report: Report) -> str:
    """The page, as text to be written in UTF-8."""
    style, script = asset("page.css"), asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    title = escape(show(report.title))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="generator" content="pellucid">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head>\n'
        f"<body>{_body(report, title)}\n{data_script('data', page_json(report))}\n"
        f"<script>{script}</script></body></html>\n"
    )


@cache
def asset(name: str) -> str:
    """A file of the package's assets folder."""
    return (Path(__file__).parent / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names an inline element: W3C CSP Level 3, section 2.3.1."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _body(report: Report, title: str) -> str:
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(show(value))}</dd></div>" for name, value in report.facts
    )
    notes = "".join(f"<p>{escape(show(note))}</p>" for note in report.notes)
    several = len(report.branches) > 1
    sections = "".join(
        _branch(report, index, branch, several) for index, branch in enumerate(report.branches)
    )
    branches = tree(report.branches)
    return (
        f'<header><h1>{title}</h1><dl class="facts">{facts}</dl>'
        f"{f'<aside>{notes}</aside>' if notes else ''}</header>"
        f'<div class="columns"><main>{_section("Branches", branches, "tree")}{sections}'
        f"{_section('Timings', _timings(report), 'timings')}{_section('Settings', _settings(report), 'settings')}"
        '</main><p id="spoken" class="unseen" role="status"></p>'
        '<aside id="panel" aria-label="the chosen token"><noscript><p>Without scripts '
        "there is no closer look at single tokens; the tables have their numbers.</p></noscript></aside></div>"
    )


def _section(title: str, content: str, identity: str) -> str:
    """ "" without content."""
    return f'<section id="{identity}"><h2>{title}</h2>{content}</section>' if content else ""


def _branch(report: Report, index: int, branch: BranchView, several: bool) -> str:
    title = f"<h2>{escape(show(branch.name))}</h2>" if several else "<h2>Text</h2>"
    where = ""
    if branch.parent is not None:
        parent = escape(show(report.branches[branch.parent].name))
        what = "prompt is that" if branch.sibling else f"first {branch.forked_at} tokens are those"
        where = f'<p class="from">The {what} of <a href="#branch-{branch.parent}">{parent}</a>.</p>'
    ended = f'<p class="ended">ended: {escape(show(branch.ended))}</p>' if branch.ended else ""
    lens = heatmap(branch.tokens, report.layer_names, index)
    return (
        f'<section id="branch-{index}" class="branch">{title}{where}{legend()}{strip(branch.tokens, index)}{ended}'
        f"{_part('Open and unexpected', curves(branch.tokens, index))}"
        f"{_part('Layer by layer', _LENS + lens if lens else '')}"
        f'<details class="all"><summary>All tokens as a table</summary>{token_table(branch.tokens)}</details>'
        "</section>"
    )


_LENS = (
    "<p>What each layer would say next: its residual stream, read through the final norm and the output projection. "
    "Each column is a token of the text, each row a layer, the last on top; its colour says how that layer ranked the "
    "token that came.</p>"
)


def _part(title: str, content: str) -> str:
    return f"<h3>{title}</h3>{content}" if content else ""


def _timings(report: Report) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(show(what))}</th><td>{_duration(seconds)}</td></tr>'
        for what, seconds in report.timings
    )
    return f"<table>{rows}</table>" if rows else ""


def _duration(seconds: float) -> str:
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def _settings(report: Report) -> str:
    """A table of what somebody or something has set, and a list of pellucid's own defaults."""
    rows = "".join(
        f'<tr><th scope="row">{escape(show(each.name))}</th><td><code>{escape(show(show_value(each.value)))}</code>'
        f"</td><td>{escape(show(each.origin))}</td><td>{escape(show(each.note))}</td></tr>"
        for each in report.settings
        if each.origin != DEFAULT
    )
    defaults = [each for each in report.settings if each.origin == DEFAULT]
    listed = " ".join(
        f"<span>{escape(show(each.name))} <code>{escape(show(show_value(each.value)))}</code></span>"
        for each in defaults
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("setting", "value", "origin", "note"))
    table = f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>' if rows else ""
    rest = f"<details><summary>{len(defaults)} at their defaults</summary><p class=defaults>{listed}</p></details>"
    return table + (rest if defaults else "")
