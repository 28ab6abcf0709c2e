"""The debugger's state and commands: branches of a generation, a cursor, settings. Knows the model, and no terminal.

Commands run on one thread at a time; `view()` makes plain data of what there is to be shown.
"""

from __future__ import annotations

import os
import shlex
from codecs import getincrementaldecoder
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from pellucid.errors import UsageError
from pellucid.glass.words import counted
from pellucid.held.past_rows import past_rows
from pellucid.sampling.distribution import Distribution
from pellucid.tui.probabilities import MOST_COLOURED, Probabilities

if TYPE_CHECKING:
    from pellucid.held.generation import Generation
    from pellucid.llm import LLM
    from pellucid.types import Float32

Parse = Callable[[str, str], Any]
"""The value of a sampling parameter of this name from its text."""
KEPT_ROWS = 16  # rows of logits that are kept beside the present ones


class Debugger:
    """Drives `branches`, of which `current` is shown. cursor: a position, or len(generation) for the token to come.

    Errors of the commands: PellucidError, in one line to be shown; nothing has changed then.
    """

    def __init__(self, llm: LLM, generation: Generation, parse: Parse, path: str | None = None) -> None:
        """path: the file that it came from."""
        self.llm = llm
        self.parse = parse
        self.path = path
        self.name = llm.info.name
        self.branches: list[Generation] = _tree(generation)
        self.current = self.branches.index(generation)
        self.cursor = len(generation)
        self.saved = True  # there is nothing that would be lost
        self._probabilities = {id(branch): Probabilities() for branch in self.branches}
        self._bytes: dict[int, bytes] = {}  # of tokens that were seen
        self._rows: OrderedDict[bytes, Float32] = OrderedDict()

    @property
    def generation(self) -> Generation:
        return self.branches[self.current]

    @property
    def probabilities(self) -> Probabilities:
        """Of the current branch."""
        return self._probabilities[id(self.generation)]

    def texts_of(self, ids: list[int]) -> list[str]:
        """What each token adds to the text that they spell: "" for one that begins a character which a later one
        completes; U+FFFD for bytes that are none."""
        decoder = getincrementaldecoder("utf-8")("replace")
        texts = []
        for token_id in ids:
            if token_id not in self._bytes:
                tokenizer = self.llm.tokenizer
                self._bytes[token_id] = tokenizer.token_bytes(token_id) or tokenizer.piece(token_id).encode()
            texts.append(decoder.decode(self._bytes[token_id]))
        return texts

    @property
    def at_end(self) -> bool:
        return self.cursor == len(self.generation)

    # --- looking --------------------------------------------------------------------------------------
    def prepare(self, most: int | None = MOST_COLOURED) -> Iterator[tuple[int, int]]:
        """Computes the probabilities of the last `most` tokens (None: of all) that are not known, and what must be
        computed for that, in pieces: (positions done, of how many) before each."""
        self.probabilities.follow(self.generation)
        yield from self.probabilities.fill(self.generation, most)

    def logits_at(self, position: int) -> Float32:
        """float32 [vocabulary]: what the token at this position is chosen from; 1 <= position."""
        ids = self.generation.token_array[:position]
        key = blake2b(ids.tobytes(), digest_size=16).digest()
        if key not in self._rows:
            if position == len(self.generation):
                self._rows[key] = self.generation.peek().logits
            else:
                past_rows(
                    self.generation, position, position + 1, lambda at, row: self._keep(key, row.copy())
                )
        self._rows.move_to_end(key)
        while len(self._rows) > KEPT_ROWS:
            self._rows.popitem(last=False)
        return self._rows[key]

    def _keep(self, key: bytes, row: Float32) -> None:
        self._rows[key] = row

    def move(self, by: int) -> None:
        """The cursor to the left or right."""
        self.cursor = min(max(self.cursor + by, 0), len(self.generation))

    # --- tokens ---------------------------------------------------------------------------------------
    def step(self) -> None:
        """At the end: the next token is chosen. Before it: the cursor goes over a token that is there."""
        if not self.at_end:
            self.move(1)
            return
        self._note_logprob()
        self.generation.step()
        self._changed()

    def run(self, stop: Event, on_token: Callable[[], None]) -> str:
        """Steps from the end of the text until it ends or `stop` is set; what to say of it."""
        self.cursor = len(self.generation)
        count = 0
        while not stop.is_set() and (self.generation.finish_reason is None or count == 0):
            self.step()
            count += 1
            on_token()
        reason = self.generation.finish_reason
        return f"{counted(count, 'token')}, " + ("stopped" if reason is None else f"then the end: {reason}")

    def back(self) -> str:
        """Before the end: everything from the cursor on is taken back; at the end: the last token."""
        to = self.cursor - 1 if self.at_end else self.cursor
        if to < 1:
            raise UsageError("the first token must stay")
        count = len(self.generation) - to
        self.generation.rewind(to=to)
        self._changed()
        return f"{counted(count, 'token')} taken back"

    def choose(self, token_id: int) -> str:
        """This token at the cursor: at the end it is appended, before it a new branch begins with it."""
        if self.cursor == 0:
            raise UsageError("nothing comes before the first token, so nothing is predicted there")
        if not self.at_end:
            if int(self.generation.token_array[self.cursor]) == token_id:
                self.move(1)
                return "that token stands there"
            self.fork()
        self._note_logprob()
        self.generation.force(token_id)
        self._changed()
        return ""

    def choose_rank(self, rank: int) -> str:
        """`choose` of the token of this rank (0: the most probable) at the cursor."""
        if self.cursor == 0:
            raise UsageError("nothing comes before the first token, so nothing is predicted there")
        top = Distribution(self.logits_at(self.cursor)).top(rank + 1)
        if rank >= len(top):
            raise UsageError(f"the vocabulary has {len(top)} tokens, none of rank {rank + 1}")
        return self.choose(top[rank])

    def force(self, text: str) -> str:
        """A text at the cursor: at the end it is appended, before it a new branch goes on with it."""
        if not text:
            raise UsageError("no text was given")
        if self.cursor == 0:
            raise UsageError("the first token must stay; put the cursor after it")
        if not self.at_end:
            self.fork()
        before = len(self.generation)
        self.generation.append(text)
        self._changed()
        return f"{counted(len(self.generation) - before, 'token')} forced"

    # --- branches -------------------------------------------------------------------------------------
    def fork(self) -> str:
        """A new branch with the tokens before the cursor becomes the current one."""
        if self.cursor == 0:
            raise UsageError("a branch has at least one token; put the cursor after it")
        fork = self.generation.fork()
        probabilities = Probabilities(self.probabilities)
        if self.cursor < len(fork):
            fork.rewind(to=self.cursor)
        fork.branch.forked_at = len(fork)
        self._probabilities[id(fork)] = probabilities
        self.branches.append(fork)
        self.current = len(self.branches) - 1
        self._changed()
        return f"branch {self.current + 1} from position {len(fork)}"

    def switch(self, by: int) -> None:
        """To the next or an earlier branch; the cursor goes to its end."""
        self.current = (self.current + by) % len(self.branches)
        self.cursor = len(self.generation)

    def drop(self) -> str:
        """The current branch is closed, and its memory given back."""
        if len(self.branches) == 1:
            raise UsageError("the only branch stays")
        gone = self.branches.pop(self.current)
        del self._probabilities[id(gone)]
        number = self.current + 1
        gone.close()
        self.current = max(0, self.current - 1)
        self._changed()
        return f"branch {number} is closed"

    # --- settings and files ---------------------------------------------------------------------------
    def configure(self, text: str) -> str:
        """ "temperature=0.8 top_p=0.9": from here on, in this branch. A value may be `none`."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"settings: {error} in {text!r:.60}") from None
        values = {}
        for word in words:
            name, equals, value = word.lstrip("-").partition("=")
            if not equals:
                raise UsageError(f"settings: expected name=value, got {word!r:.40}")
            name = name.strip().replace("-", "_")
            values[name] = self.parse(name, value.strip())
        if values:
            self.generation.configure(**values)
            self.saved = False
        idle = {
            name: why for name, why in self.generation.settings.without_effect().items() if name in values
        }
        return "; ".join(f"{name} has no effect: {why}" for name, why in idle.items())

    def warm(self, by: float) -> None:
        """The temperature goes up or down, not below 0."""
        temperature = round(max(0.0, self.generation.params.temperature + by), 6)
        self.generation.configure(temperature=temperature)
        self.saved = False

    def save(self, path: str, replace: bool = False) -> str:
        """All branches to a session file. UsageError: there is a file of this name (replace: is replaced)."""
        where = os.path.expanduser(path.strip())
        if not where:
            raise UsageError("save: no path was given")
        if not replace and os.path.lexists(where) and where != self.path:
            raise UsageError(f"that file exists; give it again to replace it: {path.strip()}")
        self.generation.save(where)
        self.path, self.saved = where, True
        return (
            f"saved: {Path(where).name}, {len(self.branches)} branch{'' if len(self.branches) == 1 else 'es'}"
        )

    # --- inside ---------------------------------------------------------------------------------------
    def _note_logprob(self) -> None:
        """So that the step records how probable its token is."""
        _ = self.generation.peek().distribution

    def _changed(self) -> None:
        self.cursor = len(self.generation)
        self.saved = False


def _tree(generation: Generation) -> list[Generation]:
    """All branches of its tree that are held, parents first."""
    found = (branch.generation for branch in generation.branch.root.walk())
    return [each for each in found if each is not None]
