"""`pellucid eval`: the tasks of lm-evaluation-harness, on its own command line."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import click

from pellucid.cli import _options
from pellucid.errors import PellucidError, UsageError


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="""\b
Examples:
  pellucid eval -m smollm2-135m-instruct --tasks hellaswag,arc_easy --limit 100
  pellucid eval --threads 2 --tasks ./my_task.yaml --output_path results --log_samples
  lm_eval --model pellucid --model_args model=smollm2-135m-instruct --tasks hellaswag

The last line is the same from the harness's side. Needs pip install 'pellucid[eval]'.
""",
)
@_options.load_options
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF lm_eval]...")
def command(arguments: tuple[str, ...], **_: object) -> None:
    """Evaluate a model with lm-evaluation-harness.

    What is no option of this command goes to `lm_eval run` as it is: --tasks, --limit, --num_fewshot,
    --apply_chat_template, --gen_kwargs, --output_path, ... (see `lm_eval run --help`).
    """
    try:
        from pellucid.evaluation.plugin import register

        register()
    except ImportError as error:
        raise UsageError(
            f"lm-evaluation-harness is not installed ({error}); pip install 'pellucid[eval]'"
        ) from None
    if any(each.startswith(("--model_args", "-a")) for each in arguments):
        raise UsageError(
            "--model_args: give this command's own options (--model, --threads, ...), or use lm_eval"
        )
    from lm_eval.__main__ import cli_evaluate

    said = {"model": click.get_current_context().params["model"]} | _options.given(_options.LOAD_NAMES)
    sys.argv = ["lm_eval", "run", "--model", "pellucid", "--model_args", json.dumps(said), *arguments]
    try:
        cli_evaluate()
    except ValueError as error:  # "Tasks not found: ..." is for the user
        if isinstance(error, PellucidError) or not _raised_by_harness(error):
            raise
        raise UsageError(f"lm-evaluation-harness: {error}") from None


def _raised_by_harness(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "lm_eval" in Path(frames[-1].filename).parts
