"""What `pellucid chat` does with a line: a message for the model, or a /command. Knows no keyboard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.cli import _console, _options
from pellucid.cli._why import branch_table, token_table, why_table
from pellucid.errors import UsageError
from pellucid.glass.words import counted

if TYPE_CHECKING:
    from pellucid.chat.answer import ChatAnswer
    from pellucid.chat.session import ChatSession
    from pellucid.chat.turn import ChatTurn
    from pellucid.llm import LLM

WHY_TOKENS = 20  # that /why shows of an answer's end
WHY_OTHERS = 5  # most probable tokens that are kept for /why

# command: (arguments, what it does); /help is made of this.
COMMANDS = {
    "undo": ("[N]", "take back the last turn, or N of them"),
    "regenerate": ("[SEED]", "another answer to the last message"),
    "edit": ("[#N] TEXT", "change your last message, or that of turn N; answer anew"),
    "fork": ("", "keep this place as a branch and go on"),
    "branches": ("", "the branches of this conversation"),
    "switch": ("N", "go on from branch N"),
    "reset": ("", "begin anew (the system message stays)"),
    "system": ("[TEXT]", "show, or set, the system message; it counts from the next turn on"),
    "save": ("FILE", "write the conversation, with its branches"),
    "load": ("[--no-kv] FILE", "go on with a conversation that was saved; --no-kv: compute it anew"),
    "set": ("NAME [VALUE]", "change a sampling parameter; without VALUE: take it back"),
    "settings": ("", "every effective setting and its origin"),
    "why": ("[N|all]", f"why the last answer's tokens: probabilities, others ({WHY_TOKENS} tokens)"),
    "tokens": ("", "the tokens of each turn and of the last answer"),
    "stats": ("", "counts and speed of the last answer"),
    "help": ("", "this"),
    "exit": ("", "leave"),
}
_NOTES = """\
Ctrl-C stops an answer and keeps what was said; Ctrl-D leaves. A line that ends in \\ goes on below;
lines between \"\"\" and \"\"\" are one message. A message that begins with a slash is written with two: //etc/hosts."""


class Leave(Exception):
    """/exit."""


def help_text(width: int) -> str:
    rows = [(f"/{name} {arguments}".rstrip(), what) for name, (arguments, what) in COMMANDS.items()]
    column = max(len(usage) for usage, _ in rows) + 2
    if column + 30 > width:  # narrow: what it does goes below
        return "\n".join(f"{usage}\n  {what}" for usage, what in rows) + "\n" + _NOTES
    return "\n".join(f"{usage:<{column}}{what}" for usage, what in rows) + "\n" + _NOTES


class Conversation:
    """A chat session, and what lines do to it. PellucidError: it is as it was before the line."""

    def __init__(
        self, llm: LLM, system: str | None, sampling: dict[str, Any], model_defaults: bool, stats: bool
    ) -> None:
        if sampling.get("n") not in (None, 1):
            raise UsageError("--n: a chat has one answer to each message; leave it out")
        self.llm = llm
        self.stats = stats
        self._told_of_changes = False
        self.chat: ChatSession = llm.chat_session(system=system, model_defaults=model_defaults, **sampling)

    @property
    def sampling(self) -> dict[str, Any]:
        return self.chat.overrides

    @property
    def _length(self) -> str:
        return counted(len(self.chat), "turn")

    def turn(self, line: str) -> None:
        """One line, or several lines that are one message."""
        if not line.strip():
            return
        _console.check_utf8(line, "the message")
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].strip().partition(" ")
            self._command(name, rest.strip())
        else:
            self._show(self.chat.say(line[1:] if line.startswith("//") else line, **self._recorded()))

    # --- answers --------------------------------------------------------------------------------------
    def _recorded(self) -> dict[str, Any]:
        """So that /why can be asked afterwards."""
        return {} if self.sampling.get("logprobs") is not None else {"logprobs": WHY_OTHERS}

    def _show(self, answer: ChatAnswer) -> None:
        last = "\n"
        thinking = False
        with answer:
            try:
                for chunk in answer:
                    if chunk.reasoning:
                        thinking = True
                        self._write_reasoning(chunk.reasoning)
                    if chunk.text:
                        if thinking:
                            self._write_reasoning("\n\n")
                            thinking = False
                        _console.write(chunk.text)
                        last = chunk.text[-1]
            except KeyboardInterrupt:
                if not _console.is_terminal(sys.stdin):
                    raise
        if last != "\n":
            _console.write("\n")
        self._note(answer.turn)

    @staticmethod
    def _write_reasoning(text: str) -> None:
        """Dim on a terminal; where stdout is a pipe, apart from the answer, on stderr."""
        if _console.is_terminal(sys.stdout):
            _console.write(text, dim=True)
        else:
            sys.stderr.write(_console.harmless(text))
            sys.stderr.flush()

    def _note(self, turn: ChatTurn) -> None:
        if turn.finish_reason not in ("eos", "stop"):
            why = "" if turn.interrupted else f": {turn.finish_reason}"  # interrupted: Ctrl-C
            _console.note(f"(stopped{why})")
        for _ in turn.answer.malformed:
            _console.note("(a tool call that cannot be read stays text)")
        change = turn.change
        if change.dropped and not self._told_of_changes:
            self._told_of_changes = True
            _console.note(
                f"({change.dropped} tokens that were there are replaced, computed anew; {change.difference})"
            )
        if self.stats:
            self._stats("")

    # --- commands -------------------------------------------------------------------------------------
    def _command(self, name: str, rest: str) -> None:
        name = {"quit": "exit", "q": "exit"}.get(name, name)
        if name not in COMMANDS:
            raise UsageError(f"no command /{name}; /help lists them")
        if rest and not COMMANDS[name][0]:
            raise UsageError(f"/{name} takes nothing after it, got '{rest[:40]}'")
        action: Callable[[str], None] = getattr(self, f"_{name}")
        action(rest)

    def _undo(self, rest: str) -> None:
        count = _number("undo", rest, 1)
        self.chat.undo(count)
        _console.note(f"(took back {counted(count, 'turn')}; {self._length} left, /branches has the others)")

    def _regenerate(self, rest: str) -> None:
        seed = _number("regenerate", rest, None)
        self._show(self.chat.regenerate(seed=seed, **self._recorded()))
        settings = self.chat.turns[-1].result.settings if self.chat.turns[-1].result else {}
        if "temperature" in settings and settings["temperature"].value == 0:
            _console.note("(temperature is 0: the answer is the same; /set temperature 0.7 for others)")

    def _edit(self, rest: str) -> None:
        first, _, text = rest.partition(" ")
        number = -1
        if first.startswith("#"):
            number, rest = _number("edit", first[1:], None) or 0, text.strip()
            if not 1 <= number <= len(self.chat):
                raise UsageError(f"/edit #{number}: there are {len(self.chat)} turns, from #1 on")
            number -= 1
        if not rest:
            raise UsageError("/edit TEXT: give the new message; /edit #2 TEXT changes that of turn 2")
        self._show(self.chat.edit(number, rest, **self._recorded()))

    def _fork(self, rest: str) -> None:
        if not len(self.chat):
            raise UsageError("there is nothing to keep yet; say something first")
        self.chat.pin()
        here = next(branch for branch in self.chat.branches if branch.current)
        _console.note(f"(this place is kept as branch {here.index}; /switch {here.index} comes back to it)")

    def _branches(self, rest: str) -> None:
        _console.note(branch_table(self.chat, _console.width()) or "(nothing was said yet)")

    def _switch(self, rest: str) -> None:
        number = _number("switch", rest, None)
        if number is None:
            raise UsageError("/switch N: give the number of a branch; /branches shows them")
        self.chat.switch(number)
        _console.note(f"(branch {number}, {self._length})")

    def _reset(self, rest: str) -> None:
        if len(self.chat):
            self.chat.undo(len(self.chat))
        _console.note("(a new conversation; /branches has the old one)")

    def _system(self, rest: str) -> None:
        if rest:
            self.chat.system = rest
            _console.note("(the system message counts from the next turn on)")
        else:
            _console.note(self.chat.system if self.chat.system is not None else "(none)")

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("/save FILE: give the name of a file")
        self.chat.save(Path(rest).expanduser())
        _console.note(f"({self._length} saved to {rest})")

    def _load(self, rest: str) -> None:
        name = rest.removeprefix("--no-kv ").strip()
        if not name or name == "--no-kv":
            raise UsageError("/load [--no-kv] FILE: give the name of a file that /save wrote")
        self.chat = self.llm.restore_chat(Path(name).expanduser(), kv=name == rest)
        _console.note(f"({self._length}; /branches shows all)")

    def _set(self, rest: str) -> None:
        """Change one parameter, if the value is one that SamplingParams takes."""
        name, _, text = rest.partition(" ")
        name = name.replace("-", "_")
        changed = {key: value for key, value in self.sampling.items() if key != name}
        if text.strip():
            changed[name] = _options.parse_value(name, text.strip())
        elif name not in self.sampling:
            raise UsageError("/set NAME VALUE: give the name of a sampling parameter and its value")
        self.chat.set_params(**changed)

    def _settings(self, rest: str) -> None:
        _console.note(self.settings_table())

    def settings_table(self) -> str:
        chat = self.chat
        return self.llm.effective_settings(
            chat.params, model_defaults=chat.model_defaults, **chat.overrides
        ).table()

    def _why(self, rest: str) -> None:
        if not len(self.chat):
            raise UsageError("there is no answer yet")
        turn = self.chat.turns[-1]
        found = turn.result.logprobs if turn.result is not None else None
        if not found:
            raise UsageError(
                "nothing is recorded of this answer's tokens (it was written or loaded, not generated here)"
            )
        count = len(found) if rest == "all" else _number("why", rest, WHY_TOKENS)
        _console.note(why_table(found[-(count or 0) :], _console.width()))
        if count is not None and count < len(found):
            _console.note(f"(the last {count} of {len(found)} tokens; /why all shows the others)")

    def _tokens(self, rest: str) -> None:
        table = token_table(self.chat, self.llm.tokenizer, self.llm.context_length, _console.width())
        _console.note(table)

    def _stats(self, rest: str) -> None:
        turns = self.chat.turns
        result = turns[-1].result if turns else None
        if result is None:
            _console.note("no answer yet" if not turns else "this answer was not generated here")
            return
        change = turns[-1].change
        dropped = f", {change.dropped} tokens replaced by the template" if change.dropped else ""
        _console.note(result.summary() + dropped)

    def _help(self, rest: str) -> None:
        _console.note(help_text(_console.width()))

    def _exit(self, rest: str) -> None:
        raise Leave


def _number(command: str, text: str, default: int | None) -> Any:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise UsageError(f"/{command}: expected a number, got '{text[:40]}'")
    return int(text)
