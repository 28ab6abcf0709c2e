"""A recorded run and its model, for the commands that look back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from pellucid.cli import _console, _options
from pellucid.errors import PellucidError, UsageError

if TYPE_CHECKING:
    from pellucid.glass.run import Run
    from pellucid.llm import LLM


def read(path: str) -> Run:
    """The run of this file; one that was cut off is noted on stderr. RunFileError: it is no run file."""
    from pellucid.glass.runfile import read_run

    run = read_run(path)
    if run.num_cut_bytes:
        _console.note(f"{path}: the last {run.num_cut_bytes} bytes are no whole frame: the run was cut off")
    return run


def open_for_run(run: Run) -> LLM:
    """The model of a recorded run, or --model; what decides numbers as in the run where the command line does not say.
    PELLUCID_MODEL is for where no model is named, and a run names one. RunFileError: it is another model."""
    from pellucid.glass.rows import check_model, load_options_of

    context = click.get_current_context()
    said = context.get_parameter_source("model") is ParameterSource.COMMANDLINE
    named = context.params["model"] if said else run.model_name
    try:
        llm = _options.open_llm(named, load_options_of(run))
    except UsageError as error:
        if named == run.model_name:
            raise
        raise UsageError(
            f"{run.path}: a run of {run.model_name!a}, opened with another model: {error}"
        ) from None
    try:
        check_model(run, llm)
    except PellucidError:
        llm.close()
        raise
    return llm
