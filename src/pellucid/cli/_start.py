"""Where the process begins, and ends: memory for the weights is asked for before anything large is imported.

The system clears memory as it is first touched; for a model's weights that takes as long as the imports of the
command line and of NumPy together. So a thread of `_native.Arena` touches it meanwhile. This file looks at the
arguments only to learn how much: what it does not understand costs the time, and nothing else.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid import _native

LOADING = ("bench", "chat", "generate", "perplexity", "score")  # the commands that load one model


def main() -> None:
    """The entry point of `pellucid` and `python -m pellucid`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the command line has its own way with Ctrl-C, there is nothing to end but the process.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    sys.unraisablehook = _again
    gc.set_threshold(50_000)  # no collection before the first token: it would find nothing in 35,000 objects
    arena = arena_for(sys.argv[1:])
    from pellucid.cli.main import main as run

    try:
        run(prog_name="pellucid", obj=arena)
    except SystemExit as end:
        if not end.code:
            leave()
        raise


def leave() -> None:
    """End the process with exit code 0 here and now, where nobody could tell the difference: the interpreter's own way
    frees every module and object one by one (25 ms after NumPy was imported), which the system does at once.

    It returns where the ordinary end has something left to do: another thread to wait for, a tracer or profiler to
    write its findings, output that cannot be written (exit code 120).
    """
    import threading

    if threading.active_count() > 1 or sys.gettrace() is not None or sys.getprofile() is not None:
        return
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(0)


def _again(what: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that came amid a finaliser, where Python drops exceptions with a note: it comes again a moment later."""
    if not isinstance(what.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(what)
        return
    import threading

    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()


def arena_for(arguments: Sequence[str]) -> _native.Arena | None:
    """Memory for the model that these arguments name, where they load one and its size is known."""
    if not arguments or arguments[0] not in LOADING or "--help" in arguments:
        return None
    size = model_size(model_argument(arguments))
    if not size:
        return None
    from pellucid import _native

    return _native.Arena(size)


def model_argument(arguments: Sequence[str]) -> str | None:
    """The last --model, the environment's, or None for the default."""
    name = os.environ.get("PELLUCID_MODEL")
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument in ("-m", "--model"):
            name = arguments[index + 1] if index + 1 < len(arguments) else name
        elif argument.startswith("--model="):
            name = argument.removeprefix("--model=")
        elif argument.startswith("-m"):
            name = argument[2:]
    return name


def model_size(name: str | None) -> int | None:
    """Bytes of a GGUF file by its path or its name in the catalog; None for anything else."""
    if name is not None and name.endswith(".gguf"):
        try:
            return os.stat(os.path.expanduser(name)).st_size
        except (OSError, ValueError):
            return None
    from pellucid.fetch.catalog import CATALOG, DEFAULT_MODEL

    recipe = CATALOG.get(name or DEFAULT_MODEL)
    return recipe.size if recipe else None
