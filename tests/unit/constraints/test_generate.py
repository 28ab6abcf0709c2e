"""Constrained generation with a tiny model: random weights, so every word of the output is the constraint's doing."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from pellucid import LLM, SamplingParams
from pellucid.errors import ConstraintError, PellucidError, UsageError
from pellucid.front.structured import IncompleteJSONError

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["name", "kind", "age"],
    "additionalProperties": False,
}
HOT = {"temperature": 2.0, "seed": 5, "max_tokens": 120, "json_whitespace": "compact"}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    from tiny_checkpoints import make

    path = make(tmp_path_factory.mktemp("llm"), "llama", "gguf", "F32")
    with LLM(path, backend="reference", num_threads=1) as loaded:
        yield loaded


def test_what_ends_by_itself_validates(llm):
    result = llm.generate("a", json_schema=SCHEMA, n=12, **HOT)
    ended = [sample for sample in result.outputs if sample.finish_reason == "eos"]
    assert len(ended) >= 10
    for sample in ended:
        jsonschema.validate(json.loads(sample.text), SCHEMA)
    assert len({sample.text for sample in ended}) > 5


def test_drafts_change_nothing(llm, monkeypatch):
    """Forced text shares passes; the tokens are those of one row at a time."""
    from pellucid.decoding.constrained import Constrained

    drafted = []
    propose = Constrained.propose

    def counting(self, history):
        drafts = propose(self, history)
        drafted.extend(drafts)
        return drafts

    monkeypatch.setattr(Constrained, "propose", counting)
    for more in ({"temperature": 2.0, "seed": 5}, {}):
        given = {"json_schema": SCHEMA, "max_tokens": 60, "json_whitespace": "compact", "logprobs": 1, **more}
        with_drafts = llm.generate("a", **given)
        monkeypatch.setattr(Constrained, "propose", lambda self, history: [])
        without = llm.generate("a", **given)
        monkeypatch.setattr(Constrained, "propose", counting)
        assert with_drafts.token_ids == without.token_ids
        assert with_drafts.logprobs == without.logprobs
    assert drafted


def test_mass_is_conserved(llm):
    """The logs of the allowed masses add up to the difference of the two sequence log-probabilities."""
    given = {**HOT, "temperature": 1.0, "json_schema": SCHEMA, "logprobs": 0}
    result = llm.generate("a", **given)
    model = sum(token.logprob for token in result.logprobs)
    constrained = sum(token.processed_logprob for token in result.logprobs)
    assert result.outputs[0].forfeited == pytest.approx(constrained - model, abs=1e-9)
    assert result.outputs[0].forfeited > 1
    state = llm.compile_constraint(json_schema=SCHEMA, json_whitespace="compact").state()
    rows = llm.logits(result.prompt_token_ids + result.token_ids).astype(np.float64)
    for i, token in enumerate(result.logprobs):
        row = rows[len(result.prompt_token_ids) - 1 + i]
        p = np.exp(row - row.max())
        allowed = state.allowed()
        assert token.constraint.allowed_logprob == pytest.approx(np.log(p[allowed].sum() / p.sum()), abs=1e-9)
        assert token.constraint.wanted == int(np.argmax(row))
        assert token.constraint.forced == (len(allowed) == 1)
        state.advance(token.token_id)


def test_by_hand_as_by_request(llm):
    given = {**HOT, "json_schema": SCHEMA}
    result = llm.generate("a", **given)
    with llm.begin("a", **given) as generation:
        generation.run()
        assert generation.tokens == result.token_ids
        generation.rewind(7)
        fork = generation.fork()
        assert generation.run() and generation.tokens == result.token_ids
        other = fork.fork(seed=99)
        fork.run()
        other.run()
        assert fork.tokens == result.token_ids
        for each in (fork, other):
            if each.finish_reason == "eos":
                jsonschema.validate(json.loads(each.text), SCHEMA)


def test_search_finds_the_best_of_what_is_allowed(llm):
    """The proven best of two texts is the more probable one, whichever way the constraint is given."""
    texts = ["0", "7"]
    prompt = llm.tokenizer.encode("a")
    end = next(iter(llm.tokenizer.eos_ids))

    def model_logprob(text):
        ids = [*llm.tokenizer.encode(text, add_bos=False), end]
        rows = llm.logits(prompt + ids).astype(np.float64)[len(prompt) - 1 : -1]
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return sum(row[token] for row, token in zip(rows, ids, strict=True))

    state = llm.compile_constraint(choices=texts).state()
    found = llm.search("a", max_tokens=2, constraint=state)
    values = {text: model_logprob(text) for text in texts}
    assert found.certified and found.outputs[0].text == max(values, key=values.get)
    assert found.outputs[0].logprob == pytest.approx(max(values.values()), abs=1e-5)
    assert llm.search("a", max_tokens=2, choices=texts).outputs[0].text in texts


def test_a_saved_generation_goes_on_under_its_constraint(llm, tmp_path):
    with llm.begin("a", regex=r"\d{6}", temperature=1.0, seed=3) as generation:
        generation.run(3)
        generation.save(tmp_path / "digits.session")
        with llm.restore(tmp_path / "digits.session") as restored:
            assert restored.run() == generation.run()
            assert restored.text == generation.text and len(restored.text) == 6
            assert restored.text.isdigit()


def test_tokens_by_hand_that_break_it_are_an_error_not_a_way_out(llm):
    with llm.begin("a", regex="b+") as generation:
        generation.append("zz")
        with pytest.raises(ConstraintError, match="not allowed after 0 tokens"):
            generation.step()
        generation.rewind(2)
        assert set(generation.run(3)) == {"b"}


def test_batches_streams_and_other_orders(llm):
    params = [SamplingParams(regex=r"\d{3}", seed=i, temperature=1.0) for i in range(3)]
    alone = [llm.generate("a", each).text for each in params]
    assert [r.text for r in llm.generate(["a"] * 3, params)] == alone
    assert all(len(text) == 3 and text.isdigit() for text in alone)
    assert "".join(chunk.text for chunk in llm.stream("a", params[0])) == alone[0]
    assert llm.generate("a", choices=["yes", "no"]).text in ("yes", "no")
    assert llm.generate("a", choices=["yes", "no"], order="vllm").text in ("yes", "no")
    with pytest.raises(UsageError, match="no stage 'constraint'"):
        llm.generate("a", choices=["yes", "no"], order="llamacpp")


def test_generate_json(llm):
    pydantic = pytest.importorskip("pydantic")

    class Animal(pydantic.BaseModel):
        kind: str = pydantic.Field(max_length=3)
        legs: int = pydantic.Field(ge=0, le=8)

    found = llm.generate_json("a", Animal, **HOT)
    assert isinstance(found, Animal) and 0 <= found.legs <= 8
    jsonschema.validate(llm.generate_json("a", SCHEMA, **HOT), SCHEMA)
    with pytest.raises(IncompleteJSONError, match="max_tokens was reached") as caught:
        llm.generate_json("a", SCHEMA, **{**HOT, "max_tokens": 4})
    assert caught.value.text.startswith("{") and caught.value.finish_reason == "length"
    with pytest.raises(UsageError, match="n is not for generate_json"):
        llm.generate_json("a", SCHEMA, n=2)
    with pytest.raises(UsageError, match="expected a JSON Schema or a Pydantic model, got None"):
        llm.generate_json("a", None)


def test_never_silently_unconstrained(llm):
    for given in ({"regex": "("}, {"json_schema": {"not": {}}}, {"grammar": "start: start"}):
        with pytest.raises(ConstraintError):
            llm.generate("a", max_tokens=2, **given)
    with pytest.raises(UsageError, match="regex and choices"):
        SamplingParams(regex="a", choices=["b"])
    with pytest.raises(UsageError, match="ignore_eos"):
        SamplingParams(regex="a", ignore_eos=True)
    with pytest.raises(UsageError, match="slide"):
        SamplingParams(regex="a", overflow="slide")
    with pytest.raises(UsageError, match="not compiled"):
        SamplingParams(regex="a").processors()[0](None, np.zeros(3, np.float32))
    with pytest.raises(PellucidError, match="regex, banned_ids exclude every token"):
        llm.generate("a", regex="b", banned_ids=llm.tokenizer.encode("b", add_bos=False))


def test_a_compiled_constraint_outlives_other_changes_only():
    params = SamplingParams(regex="a").bound("compiled")
    assert params.replace(temperature=1.0).stages()["constraint"].compiled == "compiled"
    assert params.replace(regex="b").stages()["constraint"].compiled is None
    assert params == SamplingParams(regex="a")
    assert SamplingParams(**params.to_dict()) == params


def test_schemas_as_dict_text_and_model_are_one():
    text = json.dumps(SCHEMA)
    assert SamplingParams(json_schema=SCHEMA) == SamplingParams(json_schema=text)
    assert SamplingParams(**SamplingParams(json_schema=SCHEMA).to_dict()).json_schema == text
    for wrong in (3, "{", ["a"], {"a": float("nan")}):
        with pytest.raises(UsageError, match="json_schema: expected a JSON Schema"):
            SamplingParams(json_schema=wrong)


def test_command_line(llm, tmp_path):
    from click.testing import CliRunner

    from pellucid.cli.main import main

    def run(*words):
        model = str(llm.tokenizer.path)
        return CliRunner().invoke(main, ["generate", "-m", model, "--threads", "1", "a", *words])

    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    hot = ["--temperature", "2", "--seed", "5", "--max-tokens", "120", "--json-whitespace", "compact"]
    texts = [run("--json-schema", given, *hot).stdout for given in (str(file), json.dumps(SCHEMA))]
    assert texts[0] == texts[1]
    jsonschema.validate(json.loads(texts[0]), SCHEMA)
    rules = tmp_path / "rules.gbnf"
    rules.write_text('root ::= "x" [0-9] "y"\n')
    text = run("--grammar", str(rules)).stdout.strip()
    assert len(text) == 3 and text[0] == "x" and text[1].isdigit() and text[2] == "y"
    assert run("--choices", "yes", "--choices", "no").stdout.strip() in ("yes", "no")
    for words in (["--regex", "("], ["--json-schema", "absent.json"], ["--regex", "a", "--choices", "b"]):
        failed = run(*words)
        assert failed.exit_code == 2 and not failed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("whitespace", ["flexible", "compact"])
def test_real_outputs_validate(whitespace):
    """SmolLM2, hot and greedy: whatever ends by itself validates, and the sampler's draws with drafts are those
    without."""
    from real_models import real_model

    schemas = [
        SCHEMA,
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 5},
        {"anyOf": [{"type": "string", "format": "date"}, {"type": "number", "multipleOf": 0.5}]},
        {
            "type": "object",
            "properties": {"id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}, "next": {"$ref": "#"}},
            "required": ["id"],
            "additionalProperties": False,
        },
    ]
    ended = 0
    with LLM(real_model("smollm2")) as llm:
        messages = [{"role": "user", "content": "Answer in JSON about an animal."}]
        for schema in schemas:
            given = {"json_schema": schema, "json_whitespace": whitespace, "max_tokens": 150}
            samples = llm.chat(messages, **given).outputs
            samples += llm.chat(messages, temperature=2.0, seed=1, n=6, **given).outputs
            for sample in samples:
                if sample.finish_reason == "eos":
                    jsonschema.validate(json.loads(sample.text), schema)
                    ended += 1
    assert ended >= 14
