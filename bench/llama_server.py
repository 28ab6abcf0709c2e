"""llama.cpp's server as a peer: started for a measurement, and asked over HTTP with token ids."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import peers_folder


@contextmanager
def running(model: str | Path, port: int, threads: int, options: str) -> Iterator[None]:
    """The server answers at this port of 127.0.0.1 meanwhile. options: more of its own, separated by spaces.
    FileNotFoundError: it is not built; RuntimeError: it ended, or does not answer for a minute."""
    folders = ("llama.cpp-server-build", "llama.cpp-build")
    found = [peers_folder() / folder / "bin" / "llama-server" for folder in folders]
    binary = next((path for path in found if path.is_file()), None)
    if binary is None:
        raise FileNotFoundError("llama-server is not built; CMake target llama-server, LLAMA_BUILD_SERVER=ON")
    common = f"--host 127.0.0.1 --port {port} --no-webui -t {threads} -tb {threads}"
    command = [str(binary), "-m", str(model), *common.split(), *options.split()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url)
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"llama-server ended with {process.returncode}") from None
            time.sleep(0.1)
    raise RuntimeError("llama-server did not come up")


def completion(port: int, prompt: list[int], tokens: int) -> Iterator[dict[str, Any]]:
    """The events of a greedy completion of exactly `tokens` tokens, as they come."""
    more = {"stream": True, "ignore_eos": True, "return_tokens": True}
    with _post(port, prompt, tokens, more) as response:
        for line in response:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


def timings(port: int, prompt: list[int], tokens: int) -> dict[str, Any]:
    """The server's own times of a greedy completion of at most `tokens` tokens."""
    with _post(port, prompt, tokens, {}) as response:
        found: dict[str, Any] = json.loads(response.read())["timings"]
    return found


def _post(port: int, prompt: list[int], tokens: int, more: dict[str, Any]) -> Any:
    body = {"prompt": prompt, "n_predict": tokens, "cache_prompt": True, "temperature": 0, **more}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request)
