"""The keys of the debugger: one table for the bindings, the line at the bottom and the help page."""

from __future__ import annotations

from typing import NamedTuple

from pellucid.glass.words import flowed, wrapped


class Key(NamedTuple):
    """names: as Textual names the keys, with commas. shown: for people; "": told with the key before. action: of
    the app. short: for the bottom line; "": not there."""

    names: str
    shown: str
    action: str
    short: str
    help: str


KEYS = (
    Key("s,space", "s", "step", "step", "the next token is chosen; before the end: the cursor goes on"),
    Key("r", "r", "run", "run", "steps until the text ends; Esc stops"),
    Key(
        "b,backspace",
        "b",
        "take_back",
        "back",
        "the last token is taken back; before the end: all from the cursor on",
    ),
    Key("left,h", "\u2190 \u2192", "move(-1)", "", "the cursor to another token: what was predicted there"),
    Key("right,l", "", "move(1)", "", ""),
    Key("home,g", "g G", "move(-1000000000)", "", "(or Home, End) the cursor to the first token, to the end"),
    Key("end,G", "", "move(1000000000)", "", ""),
    Key("up,k", "\u2191 \u2193", "select(-1)", "", "another row of the distribution"),
    Key("down,j", "", "select(1)", "", ""),
    Key("enter", "\u23ce", "choose", "choose", "the selected token; before the end: on a new branch"),
    Key(
        "f",
        "f",
        "ask('force')",
        "force",
        "a text at the cursor (\\n: a new line); before the end: on a new branch",
    ),
    Key("n", "n", "fork", "new branch", "a branch with the tokens before the cursor"),
    Key(
        "tab,right_square_bracket",
        "[ ]",
        "switch(1)",
        "branch",
        "(or Tab) the branch before, the next branch",
    ),
    Key("shift+tab,left_square_bracket", "", "switch(-1)", "", ""),
    Key("x", "x", "drop", "", "close this branch"),
    Key("p", "p", "ask('settings')", "settings", "sampler settings, as in temperature=0.8 top_p=0.9 seed=1"),
    Key("plus,equals_sign", "+ -", "warm(0.1)", "", "temperature up or down by 0.1"),
    Key("minus", "", "warm(-0.1)", "", ""),
    Key("w", "w", "ask('save')", "save", "all branches to a file; pellucid step --load FILE goes on"),
    Key("v", "v", "zoom", "view", "one pane large, in turn"),
    Key("c", "c", "colour", "", "compute the colours of the head of a long prompt"),
    Key("escape", "Esc", "stop", "", "stop a run; leave a line"),
    Key("question_mark", "?", "help", "help", "this page"),
    Key("q", "q", "leave", "quit", "leave; twice where branches are not saved"),
    Key("ctrl+c,ctrl+q", "", "leave", "", ""),
)
PRIORITY = ("tab", "shift+tab", "ctrl+c", "ctrl+q")  # also where a question is open; Tab would move the focus
DIGITS = "123456789"
DIGITS_HELP = "the token of that number in the distribution"


def bottom_line(width: int) -> str:
    """As many of the keys as fit."""
    line = ""
    for key in sorted(KEYS, key=lambda key: key.short != "help"):
        if key.short:
            piece = f"{key.shown} {key.short}"
            if len(line) + len(piece) + 2 > width:
                break
            line += piece + "  "
    return line.rstrip()


def help_lines(width: int) -> list[str]:
    """The keys and what they do, in lines of at most `width`."""
    lines = []
    for shown, text in (*((key.shown, key.help) for key in KEYS), ("1-9", DIGITS_HELP)):
        if shown:
            lines += flowed(f"{shown:<5}", text.split(), width, " ", 6)
    lines.append("")
    signs = (
        "Distribution: > what the settings choose, * what stands here, \u2192 probability after the stages."
    )
    for text in (signs, "Text: underlined tokens are yours."):
        lines += wrapped(text, width)
    return lines
