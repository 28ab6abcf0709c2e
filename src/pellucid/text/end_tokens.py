"""Tokens that end a generation, known by how models spell them: files often name only one of several.

The list is llama.cpp's (src/llama-vocab.cpp), which gathered it from the models that need it.
"""

from __future__ import annotations

from collections.abc import Callable

END_PIECES = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
)  # fmt: skip
# Fill-in-the-middle padding and separators: a model that emits one has left the text.
FILL_PIECES = (
    ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ("<|file_sep|>",),
)
# The parts of fill-in-the-middle; control tokens too.
MIDDLE_PIECES = (
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>", "\u2581<PRE>",
    "<|code_prefix|>", "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
    "<\uff5cfim\u2581hole\uff5c>", "<SUF>", "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>",
    "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>", "\u2581<MID>", "<|code_middle|>",
    "<|middle|>",
)  # fmt: skip
# Always part of the text that is shown (gpt-oss).
SHOWN_PIECES = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


def end_ids(find: Callable[[str], int | None]) -> tuple[set[int], set[int]]:
    """(ids that end a generation, ids that only look so) in the vocabulary that `find` looks into."""
    found = {piece: i for piece in END_PIECES if (i := find(piece)) is not None}
    ends = set(found.values())
    for group in FILL_PIECES:
        ends.update([i for piece in group if (i := find(piece)) is not None][:1])
    not_ends = set()
    calls = "<|return|>" in found and "<|call|>" in found
    flushes = ("<|call|>" in found or "<|calls|>" in found) and "<|flush|>" in found
    if "<|end|>" in found and (calls or flushes):
        not_ends.add(found["<|end|>"])  # there it ends a part of the answer, not the answer
    if "</s>" in found and ("<|tool_response>" in found or find("<|plamo:eos|>") is not None):
        not_ends.add(found["</s>"])  # an ordinary piece there
    return ends - not_ends, not_ends
