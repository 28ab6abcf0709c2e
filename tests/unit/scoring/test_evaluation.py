"""The adapter for lm-evaluation-harness where there is no torch: registration, generation, what is told, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import LLM
from pellucid.errors import UsageError
from pellucid.evaluation.arguments import cut, wanted

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (256, (), {"temperature": 0.0})),
        ({"until": ["a", ""], "max_gen_toks": 5, "do_sample": False}, (5, ("a",), {"temperature": 0.0})),
        ({"until": "ab", "max_tokens": 7, "max_new_tokens": "6"}, (6, ("ab",), {"temperature": 0.0})),
        ({"do_sample": True}, (256, (), {"temperature": 1.0})),
        ({"do_sample": False, "temperature": 0.7}, (256, (), {"temperature": 0.0})),
        ({"temperature": 0.7, "top_p": 0.9}, (256, (), {"temperature": 0.7, "top_p": 0.9})),
    ],
)
def test_generation_arguments(given, expected):
    before = repr(given)
    assert tuple(wanted(given, 256)) == expected and repr(given) == before


def test_wrong_generation_arguments():
    for given in ({"until": [5]}, {"max_gen_toks": 0}, {"max_gen_toks": "x"}, {"do_sample": "yes"}):
        with pytest.raises(UsageError, match="expected"):
            wanted(given, 256)


def test_cut_is_at_the_first_of_any():
    assert cut("one two three", ("three", "two", "x")) == "one "
    assert cut("one", ()) == "one" and cut("one", ("one",)) == ""


# --- with the harness -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    from tiny_checkpoints import make

    from pellucid.evaluation.harness import PellucidLM

    path = make(tmp_path_factory.mktemp("evaluation"), "llama", "gguf", "F32")
    return PellucidLM(str(path), threads=2, context=200)


def instances(kind, *all_arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, arguments, i, (None, None, None)) for i, arguments in enumerate(all_arguments)]


class Hook:
    def __init__(self):
        self.kept = {}

    def add_partial(self, name, arguments, answer):
        self.kept[name, repr(arguments)] = answer


def test_requests_are_sliced_grouped_and_kept(adapter, monkeypatch):
    """Whatever the slices, each answer is that of `score`, and every one reaches the harness's cache."""
    from pellucid.evaluation import harness

    monkeypatch.setattr(harness, "SLICE", 7)
    monkeypatch.setattr(adapter, "cache_hook", Hook())
    texts = [(f"context {i % 4}", f" word {i % 3}") for i in range(24)] + [("", "end"), ("  ", "end")]
    answers = adapter.loglikelihood(instances("loglikelihood", *texts), disable_tqdm=True)
    for (context, continuation), answer in zip(texts, answers, strict=True):
        (score,) = adapter.llm.score(context, [continuation], boundary="harness")
        assert answer == (score.logprob, score.greedy)
        assert adapter.cache_hook.kept["loglikelihood", repr((context, continuation))] == answer
    assert adapter.loglikelihood([]) == []


def test_rolling_is_perplexity(adapter):
    text = "It was a bright cold day in April. " * 30
    (total,) = adapter.loglikelihood_rolling(instances("loglikelihood_rolling", (text,)), disable_tqdm=True)
    result = adapter.llm.perplexity(text)
    assert total == result.logprob and result.num_windows > 1


def test_what_is_cut_is_told(adapter, caplog):
    before = adapter.num_truncated
    long = ("a long story " * 60).strip()
    requests = instances("loglikelihood", (long, " end"), ("short", " end"))
    with caplog.at_level("WARNING", logger="lm_eval.pellucid"):
        first, _ = adapter.loglikelihood(requests, disable_tqdm=True)
    assert "1 of 2 requests did not fit the context of 200 tokens" in caplog.text
    assert adapter.num_truncated == before + 1
    assert adapter.get_model_info()["num_truncated"] == before + 1
    ids = adapter.tok_encode(long + " end")
    size = len(ids) - len(adapter.tok_encode(long))
    assert first[0] == adapter.llm.score(ids[-201:-size], [ids[-size:]])[0].logprob


def test_truncation_can_be_an_error(adapter):
    from pellucid.evaluation.harness import PellucidLM

    strict = PellucidLM(adapter.llm, truncate=False)
    with pytest.raises(ValueError, match="more than the context"):
        strict.loglikelihood(instances("loglikelihood", ("a b " * 200, " c")), disable_tqdm=True)
    with pytest.raises(UsageError, match="beside max_gen_toks=9"):
        strict.generate_until(instances("generate_until", ("a b " * 200, {"max_gen_toks": 9})))


def test_texts(adapter):
    """Greedy text is that of `generate`; repeats of a sampled request differ, and come again with the seed."""
    (greedy,) = adapter.generate_until(instances("generate_until", ("Once", {"max_gen_toks": 12})))
    plain = adapter.llm.generate("Once", max_tokens=12, temperature=0)
    assert greedy == adapter.tokenizer.decode(plain.outputs[0].token_ids, skip_special=True)
    until = greedy[3:5]
    (stopped,) = adapter.generate_until(
        instances("generate_until", ("Once", {"max_gen_toks": 12, "until": [until]}))
    )
    assert stopped == greedy[: greedy.index(until)]
    arguments = ("Once", {"max_gen_toks": 12, "do_sample": True, "temperature": 1.0, "top_k": 50})
    requests = instances("generate_until", *[arguments] * 3)
    texts = adapter.generate_until(requests)
    assert len(set(texts)) == 3 and adapter.generate_until(requests) == texts
    seeds = [adapter.llm.generate("Once", max_tokens=12, temperature=1.0, top_k=50, seed=s) for s in range(3)]
    assert texts == [
        adapter.tokenizer.decode(result.outputs[0].token_ids, skip_special=True) for result in seeds
    ]
    with pytest.raises(UsageError, match="num_beams"):
        adapter.generate_until(instances("generate_until", ("Once", {"max_gen_toks": 5, "num_beams": 4})))


def test_chat_template(tmp_path):
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    import json

    from tiny_checkpoints import make

    from pellucid.evaluation.harness import PellucidLM

    path = make(tmp_path, "llama", "safetensors")
    template = (
        "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content | trim }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
    )
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    model = PellucidLM(str(path))
    talk = [{"role": "user", "content": "hi "}, {"role": "assistant", "content": "The answer is "}]
    assert model.apply_chat_template(talk[:1]) == "<|begin|>user\nhi<|end|>\n<|begin|>assistant\n"
    assert model.apply_chat_template(talk, add_generation_prompt=False).endswith("assistant\nThe answer is")
    assert model.chat_template(True) == template and model.chat_template(False) == ""
    rendered = model.apply_chat_template(talk[:1])
    assert model.tok_encode(rendered) == model.llm.render_chat(talk[:1])
    assert model.tok_encode(rendered).count(0) == 2


def test_arguments_are_checked(adapter, tmp_path):
    from pellucid.evaluation.harness import PellucidLM

    for arguments in ({}, {"model": "a", "pretrained": "b"}, {"model": "a", "dtype": "float16"}):
        with pytest.raises(UsageError, match="model_args"):
            PellucidLM(**arguments)
    with pytest.raises(UsageError, match="no token of its own"):
        adapter.loglikelihood(instances("loglikelihood", ("x", "")), disable_tqdm=True)


def test_lm_eval_finds_the_model_when_it_starts(tmp_path):
    """The line in the .pth file, read by Python's own `site`, in a program called lm_eval, and in no other."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: eval)")
    program = (
        f"import site, sys; site.addsitedir({str(ROOT / 'cmake')!r})\n"
        "known = 'lm_eval' in sys.modules\n"
        "from lm_eval.api.registry import model_registry\n"
        "print(known, 'pellucid' in model_registry, 'hf' in model_registry, 'numpy' in sys.modules)\n"
    )
    seen = []
    for name in ("lm_eval", "other"):
        (tmp_path / name).write_text(program)
        done = subprocess.run(
            [sys.executable, str(tmp_path / name)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            check=True,
        )
        seen.append(done.stdout.split())
    assert seen[0][:3] == ["True", "True", "True"] and seen[1][:2] == ["False", "False"]


def test_the_entry_point_names_the_adapter():
    import tomllib

    from pellucid.evaluation import plugin

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["lm_eval.models"] == {plugin.NAME: plugin.TARGET}


def test_llm_is_a_model(adapter):
    from pellucid.evaluation.harness import PellucidLM

    assert isinstance(adapter.llm, LLM) and adapter.max_length == 200
    with pytest.raises(UsageError, match="num_threads, context_length: the model is loaded already"):
        PellucidLM(adapter.llm, threads=2, max_length=100)
    with pytest.raises(UsageError, match="context and max_length are one setting"):
        PellucidLM(adapter.llm, context=100, max_length=100)
