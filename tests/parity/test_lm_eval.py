"""The adapter for lm-evaluation-harness against the harness's own `hf` model, on the same float32 checkpoint."""

from __future__ import annotations

import pytest
from local_tasks import arc_easy, choice_task, eval_file, hellaswag, text_task
from tiny_checkpoints import write_hub
from tiny_configs import variant
from tiny_weights import random_weights

torch = pytest.importorskip("torch", reason="torch is not installed (extra: parity)")
pytest.importorskip("transformers", reason="transformers is not installed (extra: parity)")
lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra: parity)")

VOCABULARY = 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A random model whose tokens are those of English: texts are short, and tokens join over boundaries. Its logits
    are as small as a real model's, so that a float32 logit's rounding is, too."""
    config = variant("llama") | {"vocab_size": VOCABULARY}
    weights = random_weights(config, 0)
    weights["model.norm.weight"] *= 0.1
    texts = eval_file("hellaswag_400.txt").read_text(encoding="utf-8").splitlines()
    folder = tmp_path_factory.mktemp("lm_eval") / "model"
    return write_hub(folder, config, weights, texts=texts)


@pytest.fixture(scope="module")
def both(path):
    """softmax_dtype: the harness's sums are else rounded to float32, 3e-5 at these magnitudes."""
    torch.set_num_threads(1)  # two would wait for each other on a loaded machine
    from lm_eval.models.huggingface import HFLM

    from pellucid.evaluation.harness import PellucidLM

    theirs = HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=32, softmax_dtype="float64")
    return PellucidLM(str(path)), theirs


def evaluated(model, tasks):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)  # thousands of files that nobody asks for
    return lm_eval.simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0
    )


def instances(kind, *all_arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, arguments, i, (None, None, None)) for i, arguments in enumerate(all_arguments)]


def close(ours, theirs):
    assert len(ours) == len(theirs)
    for (value, greedy), (other, other_greedy) in zip(ours, theirs, strict=True):
        assert value == pytest.approx(other, abs=1e-4) and greedy == other_greedy


def test_200_items_of_two_tasks(both, tmp_path):
    """Each request within 1e-4, and every metric of every item the same. acc_mutual_info asks for empty contexts."""
    tasks = [
        choice_task(tmp_path, "local_hellaswag", hellaswag(200), "acc", "acc_norm"),
        choice_task(tmp_path, "local_arc_easy", arc_easy(200), "acc", "acc_norm", "acc_mutual_info"),
    ]
    ours, theirs = (evaluated(model, tasks) for model in both)
    for task in ("local_hellaswag", "local_arc_easy"):
        assert len(ours["samples"][task]) == 200
        for a, b in zip(ours["samples"][task], theirs["samples"][task], strict=True):
            assert a["arguments"] == b["arguments"] and len(a["resps"]) >= 4
            close([resp for (resp,) in a["resps"]], [resp for (resp,) in b["resps"]])
            assert (a["acc"], a["acc_norm"]) == (b["acc"], b["acc_norm"])
        metrics = [name for name in theirs["results"][task] if name.endswith(",none")]
        assert {name: ours["results"][task][name] for name in metrics} == {
            name: theirs["results"][task][name] for name in metrics
        }
    assert both[0].num_truncated == 0


def test_rolling_and_generation(both, tmp_path):
    """Texts of one window and of several; greedy texts up to a stop string."""
    text = eval_file("hellaswag_400.txt").read_text(encoding="utf-8")
    texts = [text[:50], text[100:1500], text[3000:6500], "."]
    prompts = [item["query"] for item in hellaswag(6)]
    tasks = [
        text_task(
            tmp_path, "local_rolling", texts, "loglikelihood_rolling", "word_perplexity", "bits_per_byte"
        ),
        text_task(tmp_path, "local_until", prompts, "generate_until", "exact_match"),
    ]
    ours, theirs = (evaluated(model, tasks) for model in both)
    for a, b in zip(ours["samples"]["local_rolling"], theirs["samples"]["local_rolling"], strict=True):
        (got,), (expected,) = a["resps"][0], b["resps"][0]
        assert (got if isinstance(got, float) else got[0]) == pytest.approx(
            expected if isinstance(expected, float) else expected[0], rel=1e-5
        )
    for a, b in zip(ours["samples"]["local_until"], theirs["samples"]["local_until"], strict=True):
        assert a["resps"] == b["resps"]


def test_corners_of_the_boundary(both):
    """Trailing spaces, no context, control tokens spelled in the text, contexts too long."""
    ours, theirs = both
    long = "to be or not to be, that is the question. " * 90
    requests = instances(
        "loglikelihood",
        ("a context ", "here"),
        ("a context", " here"),
        ("a context  ", " here"),
        ("", "here"),
        ("", "<|begin|>here"),
        ("<|begin|>a context", " here<|end|>"),
        ("line\n", "next"),
        ("same", " one"),
        ("same", " other"),
        ("same", " one"),
        (long, " whether it is nobler"),
        (long, " x"),
    )
    close(ours.loglikelihood(requests, disable_tqdm=True), theirs.loglikelihood(requests, disable_tqdm=True))
    assert ours.num_truncated == 2 and ours.most_dropped > 500
