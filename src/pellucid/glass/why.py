"""Why a token: the record of its step as a sentence, a table for a terminal, and a table for a notebook."""

from __future__ import annotations

from html import escape
from math import exp
from typing import Any

from pellucid.glass.record import Record
from pellucid.glass.words import counted, listed, percent

_MARKS = str.maketrans({"\n": "\u21b5", "\t": "\u21e5", "\r": "\u240d"})


class Why:
    """`str(why)`: sentence and table. record: all of it, to compute with."""

    def __init__(self, record: Record) -> None:
        self.record = record

    @property
    def sentence(self) -> str:
        """One sentence, and what is odd."""
        record = self.record
        odd = [_ODD[name].format(**self._words) for name in record.flags.names if name in _ODD]
        return " ".join([self._forced() if record.flags.forced else self._chosen(), *odd])

    def _chosen(self) -> str:
        record, choice = self.record, self.record.choice
        rank, best = record.distribution.rank(record.token_id), record.distribution.top(1)[0]
        said = f"{self._name(record.token_id)}: the model gives it {percent(record.probability(record.token_id))}"
        said += (
            ", more than any other"
            if rank == 0
            else f" (rank {rank + 1:,}; {self._named_with(best)} is first)"
        )
        acting = [stage.name for stage in choice.stages if stage.removed or stage.moved]
        if acting:
            left = counted(choice.num_left, "token")
            made = f", {percent(exp(min(0.0, choice.logprob)))} for it" if choice.num_left > 1 else ""
            said += f"; {listed(acting)} {'leaves' if len(acting) == 1 else 'leave'} {left}{made}"
        if choice.runner_up is None:
            return said + "."
        second = self._name(choice.runner_up)
        if record.params.greedy:
            return said + f"; it is the largest logit, {choice.margin:.3g} above {second}."
        return said + (
            f"; its noise of {choice.noise:+.2f} put it {choice.margin:.3g} ahead of {second} "
            f"({choice.runner_up_noise:+.2f})."
        )

    def _forced(self) -> str:
        record = self.record
        said = f"{self._name(record.token_id)} was {record.kind} by the caller"
        if record.choice.token_id == record.token_id:
            return said + "; the parameters would have chosen it, too."
        rank = record.distribution.rank(record.token_id)
        return said + (
            f" (the model gives it {percent(record.probability(record.token_id))}, rank {rank + 1:,}); the parameters "
            f"would have chosen {self._named_with(record.choice.token_id)}."
        )

    @property
    def _words(self) -> dict[str, str]:
        record = self.record
        return {
            "margin": f"{record.choice.margin:.2g}",
            "noise": f"{record.tie_margin:.2g}",
            "probability": percent(record.probability(record.token_id)),
            "wanted": self._named_with(record.distribution.top(1)[0]),
        }

    @property
    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """The table: a row for the model, one for each stage, one for the draw: name, tokens removed, their
        probability, tokens left, logit of the chosen token, first token."""
        record, choice = self.record, self.record.choice
        best = record.distribution.top(1)[0]
        table = [("model", "", "", f"{len(record.logits):,}", f"{choice.raw_logit:.3f}", self._name(best))]
        for stage in choice.stages:
            mass = percent(stage.removed_probability) if stage.removed else ""
            table.append(
                (
                    stage.name,
                    f"{stage.removed:,}" if stage.removed else "",
                    mass,
                    f"{stage.left:,}",
                    f"{stage.logit:.3f}",
                    self._name(stage.top),
                )
            )
        if not record.params.greedy:
            table.append(("+ noise", "", "", "", f"{choice.score:.3f}", self._name(choice.token_id)))
        return table

    HEAD = ("stage", "removed", "mass", "left", "logit", "first")

    @property
    def table(self) -> str:
        """`rows`, aligned; then what the pass was given, and its times."""
        rows = [self.HEAD, *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, 5)), row[5]])
            for row in rows
        ]
        return "\n".join([*lines, *self.facts])

    @property
    def facts(self) -> list[str]:
        """Lines of the table's foot."""
        record, manifest = self.record, self.record.manifest
        told = [
            f"entropy {record.distribution.entropy:.3f} nats",
            f"flags: {', '.join(record.flags.names) or 'none'}",
        ]
        if not record.params.greedy:
            told.append(
                f"key: seed {record.seed}, sample {record.history.sample_index}, position {record.position}"
            )
        context = f"context: {manifest.num_positions:,} tokens ({manifest.digest}), {manifest.mask}"
        if manifest.num_computed is not None:
            context += f"; {manifest.num_computed:,} computed, {manifest.num_reused:,} reused"
        if manifest.pass_number:
            context += f"; pass {manifest.pass_number} of {manifest.num_rows} rows"
        lines = ["; ".join(told), context]
        named = [(name, getattr(record.seconds, name)) for name in record.seconds.__slots__]
        times = [f"{name} {1e3 * value:.2f} ms" for name, value in named if value]
        return [*lines, "time: " + ", ".join(times)] if times else lines

    def _name(self, token_id: int) -> str:
        return repr(self.record.text_of(token_id))

    def _named_with(self, token_id: int) -> str:
        return f"{self._name(token_id)} {percent(self.record.probability(token_id))}"

    def to_dict(self) -> dict[str, Any]:
        return {"sentence": self.sentence, **self.record.to_dict()}

    def __str__(self) -> str:
        return f"position {self.record.position}: {self.sentence}\n{self.table}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.HEAD)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell.translate(_MARKS))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        facts = "".join(f'<div style="opacity:.6;font-size:85%">{escape(line)}</div>' for line in self.facts)
        title = f"position {self.record.position}: {self.sentence}"
        return (
            f"<div><p>{escape(title.translate(_MARKS))}</p><table><tr>{head}</tr>{body}</table>{facts}</div>"
        )


_ODD = {
    "near_tie": "A near-tie: the margin of {margin} is inside the numeric noise of {noise}.",
    "constrained": "The constraint kept the model from {wanted}.",
    "forced_by_constraint": "The constraint left nothing else.",
    "improbable": "The model alone finds it improbable ({probability}).",
    "from_draft": "It had been drafted.",
    "altered": "The caller had altered the logits.",
}
