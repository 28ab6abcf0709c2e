"""Chats over many turns: each answer is that of a fresh run on the same tokens, whatever happened before."""

from __future__ import annotations

from typing import Any

import pytest
from chat_models import WEATHER

from pellucid import LLM
from pellucid.chat.answer import ChatAnswer
from pellucid.errors import ContextOverflowError, PellucidError, TemplateError, UsageError
from pellucid.outputs import Chunk, Counts, GenerationResult, Sample, Timings
from pellucid.settings import Settings

PARAMS: dict[str, Any] = {"max_tokens": 9, "temperature": 1.0, "seed": 3, "logprobs": 2}


def same_as_fresh(llm: LLM, session: Any) -> None:
    """Every answer of the session, against a model that has computed nothing before: ids and probabilities."""
    for turn in session.turns:
        if turn.result is None:
            continue
        with LLM(llm.info.path, prefix_caching=False, num_threads=1, prefill_chunk=5) as fresh:
            params = {name: turn.result.settings[name].value for name in ("temperature", "seed", "logprobs")}
            again = fresh.generate(turn.prompt.ids, max_tokens=max(1, len(turn.token_ids)), **params)
        assert again.token_ids == turn.token_ids
        assert again.logprobs == turn.result.logprobs


@pytest.mark.parametrize("template", ["chatml", "trimmed", "reasoning"])
def test_every_turn_equals_a_fresh_run_on_its_tokens(models: Any, template: str) -> None:
    llm = models(template)
    chat = llm.chat_session(system="Be brief.", **PARAMS)
    there: list[int] = []
    for text in ("one", "two ", "<|end|> three", "four"):
        turn = chat.say(text, ignore_eos=text == "two ").read()
        assert turn.prompt.ids[: turn.change.kept] == there[: turn.change.kept]
        assert turn.change.kept + turn.change.dropped == len(there)
        assert turn.tokens.ids == [*turn.prompt.ids, *turn.token_ids] == chat.tokens
        reused = turn.result.counts.reused
        assert reused >= turn.change.kept - 1  # the last token that was generated was never computed
        there = chat.tokens
    same_as_fresh(llm, chat)


def test_undo_edit_regenerate_switch_and_fork_are_exact(models: Any) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    texts = [chat.say(text).read().text for text in ("a", "b", "c")]
    before = chat.tokens
    fork = chat.fork()
    chat.undo(2)
    assert [turn.text for turn in chat.turns] == texts[:1]
    assert [turn.text for turn in fork.turns] == texts and fork.tokens == before
    chat.say("B").read()
    edited = chat.edit(0, "A").read()
    assert edited.parent is None and len(chat) == 1
    again = chat.regenerate(seed=9).read()
    assert again.inputs == edited.inputs and again is not edited
    assert [branch.num_turns for branch in chat.branches] == [3, 2, 1, 1]
    assert [branch.current for branch in chat.branches] == [False, False, False, True]
    for branch in chat.branches:
        chat.switch(branch.index)
        same_as_fresh(llm, chat)
    chat.switch(0)
    assert chat.tokens == before
    d = chat.say("d").read()
    assert fork.say("d").read().token_ids == d.token_ids
    assert len(fork.branches) == 1
    chat.undo(len(chat))
    assert (chat.tokens, chat.turns, chat.branches[0].turn) == ([], [], None)
    assert chat.say("a").read().text == texts[0]
    redrawn = chat.regenerate().read()
    assert redrawn.result is not None and redrawn.result.settings["seed"].origin == "drawn at random"


def test_an_answer_that_somebody_wrote(models: Any) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    chat.say("a").read()
    written = chat.edit_answer(-1, "my words <|end|>")
    assert (written.text, written.finish_reason) == ("my words <|end|>", "edited")
    assert (
        chat.tokens
        == llm.render_chat(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "my words <|end|>"}],
            add_generation_prompt=False,
        )[: len(chat.tokens)]
    )
    turn = chat.say("b").read()
    assert turn.change.append_only
    same_as_fresh(llm, chat)


def test_an_interrupted_answer_stays_and_is_marked(models: Any) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    answer = chat.say("a", ignore_eos=True)
    shown = [next(answer).text for _ in range(3)]
    with pytest.raises(UsageError, match="still runs"):
        chat.say("b")
    answer.close()
    turn = chat.turns[-1]
    assert turn.interrupted and len(turn.token_ids) == 3 and turn.text.startswith("".join(shown))
    dropped = chat.say("b", ignore_eos=True)
    next(dropped)
    del dropped
    assert chat.turns[-1].interrupted and len(chat.turns[-1].token_ids) == 1
    assert chat.say("c").read().change.append_only


def test_ctrl_c_keeps_what_was_said(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    answer = chat.say("a", ignore_eos=True)
    next(answer)

    def interrupted(request: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(llm._driver, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(answer)
    assert chat.turns[-1].interrupted and len(chat.turns[-1].token_ids) == 1
    chat.say("b").read()


def test_errors_leave_the_chat_as_it_was(models: Any) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    chat.say("a").read()
    before = chat.tokens
    with pytest.raises(ContextOverflowError):
        chat.say("x" * 2 * llm.context_length)
    for wrong in (
        lambda: chat.say(5),
        lambda: chat.say("b", temperature=-1),
        lambda: chat.say("b", n=2),
        lambda: chat.undo(2),
        lambda: chat.undo(True),
        lambda: chat.switch(1),
        lambda: chat.edit(1, "x"),
        lambda: chat.tool_results([]),
        lambda: chat.tool_results(["x"]),
        lambda: llm.chat_session(n=2),
        lambda: llm.chat_session(system=5),
        lambda: llm.chat_session(nothing=1),
        lambda: llm.chat_session(template_variables={"messages": 1}),
    ):
        with pytest.raises(UsageError):
            wrong()
    assert chat.tokens == before and len(chat.branches) == 1


def test_an_engine_that_fails_takes_the_turn_back(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = models("chatml")
    chat = llm.chat_session(**PARAMS)
    chat.say("a").read()
    answer = chat.say("b", ignore_eos=True)
    next(answer)

    def failed(request: Any) -> None:
        raise PellucidError("the engine failed")

    with monkeypatch.context() as patch:
        patch.setattr(llm._driver, "advance", failed)
        with pytest.raises(PellucidError, match="the engine failed"):
            answer.read()
    assert len(chat) == 1 and len(chat.branches) == 1
    chat.say("b").read()


def test_what_a_template_ignores_is_an_error(models: Any) -> None:
    with pytest.raises(TemplateError, match="ignores tools"):
        models("plain").chat_session(tools=[WEATHER])
    with pytest.raises(TemplateError, match="leaves out messages of role 'system'"):
        models("user").chat_session(system="x").say("a")


# --- tools, with answers that a script writes ---------------------------------------------------------------
class Script:
    """In place of a stream: these tokens, one chunk each."""

    def __init__(self, llm: LLM, ids: list[int], answer: list[int]) -> None:
        self._llm, self._ids, self._answer, self._at = llm, ids, answer, 0

    def __next__(self) -> Chunk:
        if self._at == len(self._answer):
            raise StopIteration
        token = self._answer[self._at]
        self._at += 1
        last = self._at == len(self._answer)
        control = token in self._llm.tokenizer.special_ids
        text = "" if control else self._llm.tokenizer.token_bytes(token).decode("latin-1")
        return Chunk(text, token, 0, None, None, "eos" if last else None)

    def end(self) -> list[Chunk]:
        return []

    unread = end

    @property
    def result(self) -> GenerationResult:
        sample = Sample(0, "", self._answer[: self._at], "eos")
        return GenerationResult(
            None, self._ids, [sample], Counts(0, 0, 0, 0), Timings(0, None, 0, None, None), Settings([])
        )


def scripted(llm: LLM, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    left = [[*llm.tokenizer.encode(answer, add_bos=False), 1] for answer in answers]
    monkeypatch.setattr(llm, "stream", lambda ids, *args, **more: Script(llm, ids, left.pop(0)))


def test_calls_and_results_of_tools(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = models("chatml")

    def weather(city: str) -> dict[str, Any]:
        """The weather.

        Args:
            city: Where.
        """
        return {"city": city, "sky": "grey"}

    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
    scripted(llm, monkeypatch, "Let me see.\n" + call + "\n" + call, "Grey.", "x")
    chat = llm.chat_session(tools=[weather])
    assert chat.answer_format == "hermes"
    turn = chat.say("Weather?").read()
    assert (turn.text, [c.id for c in turn.answer.tool_calls]) == ("Let me see.", ["call00001", "call00002"])
    with pytest.raises(UsageError, match="tool_results"):
        chat.say("well?")
    with pytest.raises(UsageError, match="has 2 calls"):
        chat.tool_results(["one"])
    results = chat.run_tools()
    assert results == [{"city": "Ulm", "sky": "grey"}] * 2
    after = chat.tool_results(results).read()
    assert after.text == "Grey." and after.change.append_only  # the call stands as it was generated
    assert '"sky": "grey"' in after.prompt.text and "<|begin|>tool\n" in after.prompt.text
    assert [m["role"] for m in chat.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert chat.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Ulm"}}
    assert chat.say("Thanks").read().change.append_only


def test_reasoning_is_taken_out_and_what_the_template_drops_is_told(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = models("reasoning")
    scripted(llm, monkeypatch, "<think>\nhm\n</think>\n\nYes.", "<think>b", "c")
    chat = llm.chat_session()
    turn = chat.say("a").read()
    assert (turn.text, turn.answer.reasoning) == ("Yes.", "hm")
    assert chat.messages[-1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
    second = chat.say("b").read()
    assert not second.change.append_only and "<think>" in second.change.difference
    assert second.change.kept == len(turn.prompt)
    assert "hm" not in second.prompt.text and "Yes." in second.prompt.text
    assert (second.text, second.answer.reasoning) == ("", "b")
    assert isinstance(chat.say("c"), ChatAnswer)


def test_generated_control_tokens_are_no_text(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = models("chatml")
    monkeypatch.setattr(llm, "stream", lambda ids, *a, **m: Script(llm, ids, [80, 0, 81, 1]))
    chat = llm.chat_session()
    turn = chat.say("a").read()
    assert [span.kind for span in turn.answer.spans] == ["text", "marker", "text"]
    assert not turn.verbatim and turn.token_ids == [80, 0, 81, 1]
    change = chat.say("b").turn.change
    assert not change.append_only and change.kept == len(turn.prompt) + 1


def test_an_error_amid_an_answer_is_raised_and_takes_the_turn_back(models: Any) -> None:
    def fails(token_ids: Any, logits: Any) -> Any:
        if len(token_ids) > start + 2:
            raise ValueError("out of words")
        return logits

    chat = models("chatml").chat_session(**PARAMS)
    chat.say("one").read()
    before, start = chat.tokens, len(chat.tokens) + 14
    with pytest.raises(PellucidError, match="out of words"):
        chat.say("two", logits_processors=[fails], ignore_eos=True).read()
    assert chat.tokens == before and len(chat) == 1
