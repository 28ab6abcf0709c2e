"""lm-evaluation-harness runs on pellucid: `lm_eval --model pellucid --model_args model=PATH --tasks ...`.

What is scored, and from which tokens, is the harness's own code (`TemplateLM`: joint encoding and cut, trailing
spaces moved, empty contexts); who scores it is `LLM.score_many`'s engine. Numbers do not depend on the batch.
Gao et al., A framework for few-shot language model evaluation (github.com/EleutherAI/lm-evaluation-harness).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from math import fsum
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from pellucid.errors import PellucidError, TemplateError, UsageError
from pellucid.evaluation.arguments import Wanted, cut, wanted
from pellucid.llm import LLM
from pellucid.scoring.encode import prefix_id, rolling_windows
from pellucid.scoring.many import score_items
from pellucid.scoring.results import Scores
from pellucid.serving.many import Job, run_jobs

SLICE = 2048  # requests whose tokens are in memory at once
DEFAULT_LENGTH = 256  # tokens to generate where a task does not say, as in the harness's own models

_log = logging.getLogger("lm_eval.pellucid")  # shown as the harness's own messages are

Encoded = tuple[tuple[str, str], list[int], list[int]]  # (texts, context ids, continuation ids)


@register_model("pellucid")
class PellucidLM(TemplateLM):
    """model (or pretrained): a path, a catalog name, or an `LLM`. threads, context (or max_length), chunk, kv_format,
    activations, kv_memory (bytes), backend: as `pellucid --help` has them.

    max_gen_toks: for tasks that do not say. add_bos_token: default as the file says. prefix_token_id: before empty
    contexts; default BOS, or else the end token. truncate=False makes a context that is too long an error; otherwise
    it loses tokens at its left, as the harness wants it, and a warning and the results (`num_truncated`) say so.
    seed: of sampled texts; the n-th repeat of a request draws with seed + n.

    Texts are tokenised with the control tokens that they spell, as the harness does: tasks and chat templates write
    them as text. Errors: UsageError and what loading raises; a request that cannot be scored ends the run.
    """

    def __init__(
        self,
        model: str | LLM | None = None,
        *,
        pretrained: str | None = None,
        threads: int | None = None,
        context: int | None = None,
        max_length: int | None = None,
        chunk: int | None = None,
        kv_format: str = "auto",
        activations: str = "f32",
        kv_memory: int | None = None,
        backend: str = "cpu",
        max_gen_toks: int = DEFAULT_LENGTH,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        truncate: bool = True,
        seed: int = 0,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        if unknown:
            raise UsageError(f"model_args: no argument '{next(iter(unknown))}'; see docs/evaluation.md")
        if (model is None) == (pretrained is None):
            raise UsageError("model_args: expected model=PATH (or pretrained=PATH), one of them")
        if str(batch_size or 1) != "1" or max_batch_size is not None:
            _log.info(
                "batch_size has no effect: passes are packed as the engine likes, numbers do not change"
            )
        if device not in (None, "cpu"):  # the harness's command line says cuda:0 where its user said nothing
            _log.info("device %s has no effect: pellucid computes on the CPU", device)
        if context is not None and max_length is not None:
            raise UsageError("model_args: context and max_length are one setting; give one of them")
        chosen = model if model is not None else pretrained
        options: dict[str, Any] = {
            "num_threads": threads, "context_length": context if context is not None else max_length,
            "prefill_chunk": chunk, "kv_format": kv_format, "activations": activations, "kv_memory": kv_memory,
            "backend": backend,
        }  # fmt: skip
        if isinstance(chosen, LLM):
            unsaid = {"kv_format": "auto", "activations": "f32", "backend": "cpu"}
            given = [name for name, value in options.items() if value != unsaid.get(name)]
            if given:
                raise UsageError(f"{', '.join(given)}: the model is loaded already; give this to LLM")
            self.llm = chosen
        else:
            self.llm = LLM(str(chosen), **options)
        self.tokenizer = self.llm.tokenizer
        self.max_gen_toks = max_gen_toks
        self.seed = seed
        self._add_bos = add_bos_token
        self._prefix_id = prefix_id(self.tokenizer) if prefix_token_id is None else prefix_token_id
        self._truncate = truncate
        self.num_truncated = 0  # requests so far whose context lost tokens
        self.most_dropped = 0  # by one of them

    # --- what the harness asks of a model -----------------------------------------------------------------
    @property
    def eot_token_id(self) -> int:
        ends = self.tokenizer.eos_ids
        return min(ends) if ends else self._prefix_id

    @property
    def prefix_token_id(self) -> int:
        return self._prefix_id

    @property
    def max_length(self) -> int:
        return self.llm.context_length

    @property
    def tokenizer_name(self) -> str:
        """For the keys of the harness's caches."""
        return self.tokenizer.path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        bos = self._add_bos if add_special_tokens is None else add_special_tokens
        return self.tokenizer.encode(string, add_bos=bos, parse_special=True)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source, for the results. TemplateError: the model has none; UsageError: one by name."""
        if not chat_template:
            return ""
        if isinstance(chat_template, str):
            raise UsageError(
                f"chat_template {chat_template!r:.40}: this model has one template, without a name"
            )
        if self.tokenizer.chat_template is None:
            raise TemplateError(f"{self.tokenizer.path}: this model has no chat template")
        return self.tokenizer.chat_template

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text. add_generation_prompt False: it ends where the last message does."""
        from pellucid.text.chat import render_chat_text

        text = render_chat_text(self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"].strip()
        at = text.rfind(last)
        if at < 0:
            raise TemplateError(f"the chat template does not show the last message {last!r:.40} as it is")
        return text[: at + len(last)]

    def get_model_info(self) -> dict[str, Any]:
        """For the results. num_truncated, most_dropped: requests whose context lost tokens, and how many."""
        from pellucid.fingerprint import fingerprint

        info = self.llm.info
        return {
            "model_num_parameters": info.num_parameters,
            "model_dtype": ", ".join(info.formats),
            "model_sha": fingerprint(self.llm)["weights"],
            "context_length": self.max_length,
            "kv_format": str(self.llm.settings["kv_format"].value),
            "activations": str(self.llm.settings["activations"].value),
            "num_truncated": self.num_truncated,
            "most_dropped": self.most_dropped,
        }

    # --- log-likelihoods ----------------------------------------------------------------------------------
    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether it is the greedy one) of each request."""
        answers: list[tuple[float, bool]] = []
        before = self.num_truncated
        with tqdm(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as self._bar:
            for start in range(0, len(requests), SLICE):
                answers += super().loglikelihood(requests[start : start + SLICE], disable_tqdm=True)
        self._tell_truncated(before, len(requests))
        return answers

    def _loglikelihood_tokens(self, requests: Sequence[Encoded], **_: object) -> list[tuple[float, bool]]:
        """requests: a slice, encoded. Those of one context are one item, wherever they stand."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, (texts, context, continuation) in enumerate(requests):
            if not continuation:
                raise UsageError(
                    f"the continuation {texts[1]!r:.40} has no token of its own after the context "
                    f"{texts[0][-40:]!r}; move text between the two, or drop the item"
                )
            groups.setdefault(tuple(context), []).append(index)
        items = [(context, [requests[index][2] for index in found]) for context, found in groups.items()]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for found, scores in zip(groups.values(), self._scores(items), strict=True):
            for index, score in zip(found, scores, strict=True):
                answers[index] = answer = (score.logprob, score.greedy)
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
            self._bar.update(len(found))
        return answers

    def _scores(self, items: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Iterator[Scores]:
        for scores in score_items(self.llm, items, "joint", None, self._truncate):
            if isinstance(scores, PellucidError):
                raise scores
            for score in scores:
                self._count_dropped(score.num_dropped)
            yield scores

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each text, window by window, every token predicted once."""
        totals: list[float] = []
        for request in tqdm(requests, desc="loglikelihood_rolling", disable=disable_tqdm):
            (text,) = request.args
            windows = rolling_windows(
                self.tok_encode(text), self._prefix_id, self.max_length, self.max_length
            )
            items = [(context, [after]) for context, after in windows]
            total = fsum(score.logprob for (score,) in self._scores(items))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            totals.append(total)
        return totals

    # --- texts --------------------------------------------------------------------------------------------
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that follows each context, cut before the first of the strings in `until`."""
        all_wanted = [wanted(request.args[1], self.max_gen_toks) for request in requests]
        before = self.num_truncated
        texts = [""] * len(requests)
        bar = tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm)
        jobs = self._jobs(requests, all_wanted)
        with bar, closing(run_jobs(self.llm, jobs, model_defaults=False, sort=True)) as results:
            for index, result in results:
                if isinstance(result, PellucidError):
                    raise result
                ids = result.outputs[0].token_ids
                text = cut(self.tokenizer.decode(ids, skip_special=True), all_wanted[index].until)
                texts[index] = text
                self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update()
        self._tell_truncated(before, len(requests))
        return texts

    def _jobs(self, requests: Sequence[Any], all_wanted: Sequence[Wanted]) -> Iterator[Job[int]]:
        repeats: Counter[str] = Counter()
        for index, (request, want) in enumerate(zip(requests, all_wanted, strict=True)):
            room = self.max_length - want.max_tokens
            if room < 1:
                raise UsageError(
                    f"max_gen_toks is {want.max_tokens}, and the context of {self.max_length} tokens must hold the "
                    "prompt too; give less"
                )
            ids = self.tok_encode(request.args[0])
            excess = max(0, len(ids) - room)
            if excess and not self._truncate:
                raise UsageError(
                    f"the context has {excess} tokens more than fit beside max_gen_toks={want.max_tokens}; shorten "
                    "it, or give truncate=True"
                )
            self._count_dropped(excess)
            fields = want.fields | {"max_tokens": want.max_tokens, "stop": want.until}
            if want.sampled:
                key = repr(request.args)
                fields.setdefault("seed", self.seed + repeats[key])
                repeats[key] += 1
            yield Job(index, ids[excess:] or [self._prefix_id], fields)

    # --- what was dropped ---------------------------------------------------------------------------------
    def _count_dropped(self, count: int) -> None:
        self.num_truncated += count > 0
        self.most_dropped = max(self.most_dropped, count)

    def _tell_truncated(self, before: int, total: int) -> None:
        if self.num_truncated > before:
            _log.warning(
                "%d of %d requests did not fit the context of %d tokens and lost tokens at their left, at most %d; "
                "truncate=False makes this an error",
                self.num_truncated - before, total, self.max_length, self.most_dropped,
            )  # fmt: skip
