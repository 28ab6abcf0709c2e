"""What an engine can take: checked once, when a request comes in."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.engine.request import Request
from pellucid.errors import ContextOverflowError, UsageError
from pellucid.sampling.limits import slide_amount
from pellucid.types import Int32


@dataclass(frozen=True)
class Limits:
    """context_length: the longest sequence, prompt and output; what: what sets it, for messages."""

    vocabulary_size: int
    context_length: int
    what: str

    @classmethod
    def of(
        cls, vocabulary_size: int, model_context: int, num_blocks: int, block_size: int, asked: int | None
    ) -> Limits:
        """The least of the model's context, what the blocks hold, and what was asked for.

        UsageError if more is asked for than the others allow.
        """
        held = num_blocks * block_size
        if asked is not None and not 1 <= asked <= min(model_context, held):
            raise UsageError(
                f"context_length: expected 1 to {min(model_context, held)} (the model has {model_context} positions, "
                f"the KV cache {held}), got {asked}"
            )
        if asked is not None:
            return cls(vocabulary_size, asked, f"the context_length of {asked}")
        if model_context <= held:
            return cls(vocabulary_size, model_context, f"the model's context of {model_context}")
        blocks = f"{num_blocks} blocks of {block_size}"
        return cls(vocabulary_size, held, f"the {held} positions of the KV cache ({blocks})")

    def check_request(self, request: Request) -> None:
        """UsageError if a token id is not in the vocabulary; ContextOverflowError if the prompt, or the
        prompt and max_tokens (with overflow "error"), exceed the context."""
        self.check_ids(request.prompt_ids)
        request.params.check_vocabulary(self.vocabulary_size)
        self._check_id(max(request.stop_ids, default=0), "stop id")
        num_prompt, params = len(request.prompt_ids), request.params
        if request.companion_ids is not None:
            self.check_ids(request.companion_ids)
            num_prompt = max(num_prompt, len(request.companion_ids))
        max_tokens = params.max_tokens if params.overflow == "error" else None
        if params.overflow == "slide":
            slide_amount(params.slide_keep, params.slide_drop, self.context_length)
        excess = num_prompt + (max_tokens or 1) - self.context_length
        if excess > 0:
            asked = f"max_tokens={max_tokens}" if max_tokens is not None else "one to generate"
            raise ContextOverflowError(
                f"{num_prompt} prompt tokens plus {asked} exceed {self.what} by {excess}; "
                "shorten the prompt, lower max_tokens or enlarge the context"
            )

    def check_score(self, ids: Int32) -> None:
        """The same for tokens whose logits are wanted: they may fill the context."""
        self.check_ids(ids)
        excess = len(ids) - self.context_length
        if excess > 0:
            raise ContextOverflowError(f"{len(ids)} tokens exceed {self.what} by {excess}; shorten them")

    def check_append(self, num_tokens: int, ids: Int32) -> None:
        """Whether these ids may follow num_tokens others."""
        if len(ids):
            self.check_ids(ids)
        excess = num_tokens + len(ids) - self.context_length
        if excess > 0:
            raise ContextOverflowError(
                f"{len(ids)} tokens after {num_tokens} exceed {self.what} by {excess}; "
                "append fewer, or enlarge the context"
            )

    def check_ids(self, ids: Int32) -> None:
        self._check_id(int(ids.max()), "token id")

    def _check_id(self, token: int, what: str) -> None:
        if token >= self.vocabulary_size:
            raise UsageError(f"{what} {token} is not in the vocabulary (0 to {self.vocabulary_size - 1})")
