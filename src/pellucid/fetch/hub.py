"""Talk to the Hub: reach it in bounded time, say in one line what it refused, fetch one pinned file.

All traffic goes through huggingface_hub, so its settings hold: HF_HOME, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE, proxies and certificates. What it does not do is give up soon: its retries can take minutes,
a name look-up or a firewall that swallows packets longer still. So every conversation starts with one
question asked on a thread, under a deadline of ours.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pellucid.errors import DownloadError, ModelNotFoundError, PellucidError, UsageError
from pellucid.fetch.cache import Cache, check_space
from pellucid.fetch.catalog import HubSource, Recipe
from pellucid.fetch.progress import Progress, phase, watching

# Seconds that the Hub has to answer the first question when there is another source to fall on. With the
# import of huggingface_hub (0.3 s) an unreachable Hub costs less than 3 s.
FALLBACK_SECONDS = 2.0

T = TypeVar("T")


class HubUnreachableError(DownloadError):
    """The Hub did not answer, or not in time; the model may well be there."""


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def answer_seconds() -> float:
    """Seconds to wait for the Hub's first answer when it is the only source: HF_HUB_ETAG_TIMEOUT, or 10."""
    value = os.environ.get("HF_HUB_ETAG_TIMEOUT") or "10"
    try:
        return max(float(value), 0.1)
    except ValueError:
        raise UsageError(f"HF_HUB_ETAG_TIMEOUT must be a number of seconds, not '{value}'") from None


def ask(question: Callable[[], T], what: str, seconds: float) -> T:
    """The answer to one question to the Hub, within `seconds`.

    Raises HubUnreachableError, ModelNotFoundError (it does not exist) or DownloadError (refused), each in
    one line.
    """
    answers: list[T] = []
    problems: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(question())
        except BaseException as error:
            problems.append(error)

    # A daemon thread, because a name look-up can be neither timed out nor interrupted.
    thread = threading.Thread(target=run, name="pellucid-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    with hub_errors(what):
        # The library's own clock, set to the same time, may be the first.
        if problems and not _is_timeout(problems[0]):
            raise problems[0]
    if not answers:
        raise HubUnreachableError(f"the Hub ({endpoint()}) did not answer within {seconds:g} s")
    return answers[0]


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn huggingface_hub's errors about `what` (repo or repo/file) into ours."""
    from huggingface_hub import errors

    repo = "/".join(what.split("/")[:2])
    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"hf:{what}: the repository is gated; accept its terms at {endpoint()}/{repo}, "
            "then set HF_TOKEN or run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"hf:{what}: the Hub ({endpoint()}) shows no such repository; check the name, or, "
            "if it is private, set HF_TOKEN or run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"hf:{what}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubUnreachableError(f"the Hub ({endpoint()}) could not be reached: {_short(error)}") from error
    except errors.EntryNotFoundError as error:
        raise ModelNotFoundError(f"hf:{what}: the repository has no such file") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in {401, 403}:
            raise DownloadError(
                f"hf:{what}: the Hub refused access ({status}); set HF_TOKEN to a token that may read it"
            ) from error
        if status is not None and status < 500 and status not in {408, 429}:
            raise DownloadError(f"hf:{what}: the Hub answered {status}: {_short(error)}") from error
        raise HubUnreachableError(f"the Hub ({endpoint()}) is not well: {_short(error)}") from error
    except errors.HFValidationError as error:
        raise UsageError(f"hf:{what}: not a repository name: {_short(error)}") from error
    except PellucidError:
        raise
    except OSError as error:
        if error.errno is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            raise  # the disk, not the network: `disk_errors` words it
        raise HubUnreachableError(f"the Hub ({endpoint()}): {_short(error)}") from error
    except Exception as error:
        if not _is_transport_error(error):
            raise
        raise HubUnreachableError(f"the Hub ({endpoint()}) could not be reached: {_short(error)}") from error


# Whose errors are the network's: huggingface_hub changed its HTTP library twice, and hf_xet raises plain
# RuntimeErrors.
_TRANSPORTS = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "huggingface_hub", "hf_xet"}


def _is_transport_error(error: BaseException) -> bool:
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return bool(modules & _TRANSPORTS) or type(error) is RuntimeError


def _is_timeout(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TimeoutError", "TimeoutException", "Timeout"})  # Python's, httpx's, requests'


def _short(error: BaseException) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def own_bars_off() -> Iterator[None]:
    """Keep huggingface_hub from drawing its progress bars beside ours."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def fetch_from_hub(
    recipe: Recipe, source: HubSource, staging: Path, cache: Cache, progress: Progress
) -> Path:
    """Download the recipe's file into `staging`; the caller checks its content. Raises DownloadError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    what = f"{source.repo}/{source.file}"
    address = hf_hub_url(source.repo, source.file, revision=source.revision, endpoint=endpoint())
    seconds = min(FALLBACK_SECONDS, answer_seconds())
    about = ask(lambda: get_hf_file_metadata(address, timeout=seconds), what, seconds)
    if about.size is not None and about.size != recipe.size:
        raise DownloadError(f"hf:{what}: the Hub's file has {about.size} bytes, expected {recipe.size}")
    if recipe.size is not None:
        check_space(recipe.name, cache.root, recipe.size)
    folder = staging / "hub"
    with phase(progress, f"fetching {recipe.name} from the Hub ({source.repo})", recipe.size):
        with hub_errors(what), own_bars_off(), watching(folder, progress, 0, "*.incomplete"):
            path = hf_hub_download(
                source.repo,
                source.file,
                revision=source.revision,
                local_dir=folder,
                endpoint=endpoint(),
                etag_timeout=answer_seconds(),
            )
        progress.at(Path(path).stat().st_size)
        return Path(path)
