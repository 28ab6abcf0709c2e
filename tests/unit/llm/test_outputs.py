import json
import pickle

from pellucid.outputs import Alternative, Counts, GenerationResult, Sample, Timings, TokenLogprobs
from pellucid.settings import Setting, Settings


def make(**changes):
    sample = Sample(0, " a <b>", [5, 6], "stop", "\n")
    fields = dict(
        prompt="1 < 2",
        prompt_token_ids=[1, 2, 3],
        outputs=[sample],
        counts=Counts(prompt=3, computed=2, reused=1, generated=2),
        timings=Timings(0.001, 0.25, 0.5, 8.0, 4.0),
        settings=Settings([Setting("eos_ids", frozenset({2, 1}), "model file")]),
    )
    return GenerationResult(**(fields | changes))


def test_the_first_sample_stands_for_the_result():
    result = make()
    assert result.text == " a <b>"
    assert result.token_ids == [5, 6]
    assert (result.finish_reason, result.stop_match, result.logprobs) == ("stop", "\n", None)


def test_repr_is_one_readable_line():
    text = repr(make())
    assert "\n" not in text
    for part in ("' a <b>'", "2 tokens", "stop on '\\n'", "3 tokens (1 reused)", "4.0 tokens/s"):
        assert part in text
    several = repr(make(outputs=[Sample(0, "x", [1], "length"), Sample(1, "y" * 100, [1], None)]))
    assert "still running" in several
    assert "(100 characters)" in several


def test_html_escapes_what_the_model_wrote():
    html = make()._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert "1 &lt; 2" in html
    logprobs = [TokenLogprobs(5, "<i>", -0.5, -0.5, (Alternative(6, '"&', -1.0),))]
    shaded = make(outputs=[Sample(0, "<i>", [5], "eos", None, logprobs)])._repr_html_()
    assert "<i>" not in shaded
    assert "&lt;i&gt;" in shaded
    assert "p = 0.607" in shaded


def test_to_dict_is_json_and_complete():
    data = json.loads(json.dumps(make().to_dict()))
    assert data["outputs"][0]["token_ids"] == [5, 6]
    assert data["counts"] == {"prompt": 3, "computed": 2, "reused": 1, "generated": 2}
    assert data["settings"]["eos_ids"] == {"value": [1, 2], "origin": "model file"}


def test_results_survive_pickling():
    assert pickle.loads(pickle.dumps(make())).text == make().text


def test_settings_merge_and_show():
    merged = Settings([Setting("a", 1, "default"), Setting("b", 2, "default")]).merged(
        [Setting("b", 3, "caller", "x")]
    )
    assert (merged["b"].value, merged["b"].origin, list(merged)) == (3, "caller", ["a", "b"])
    assert merged.table().splitlines() == ["a  1  default", "b  3  caller (x)"]
    assert "<td>b</td>" in merged._repr_html_()
