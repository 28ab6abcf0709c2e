"""What a measurement was made on: machine, commit, versions, and the ceilings probed in the same run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Throughput:
    """Tokens/s of one process. sequences: number decoding at a time -> tokens/s of all together. ceilings: what our own
    `pellucid bench` says of the machine and of the model; None for a peer."""

    prefill: float
    decode: float
    sequences: dict[int, float]
    ceilings: dict[str, float] | None = None


def token_ids(vocabulary: int, length: int, number: int) -> list[int]:
    """A prompt that looks like any other; another one for each number."""
    return [(7919 * (position + 131 * number) + 13) % vocabulary for position in range(length)]


def peers_folder() -> Path:
    """Where other engines are built: $PELLUCID_PEERS, or a folder of the user's cache; not the repository."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pellucid-peers"
    folder = Path(os.environ.get("PELLUCID_PEERS", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe() -> dict[str, Any]:
    """Processor, cores, memory, kernel, commit ("+changes": the tree is not clean), Python and NumPy."""
    import numpy

    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "commit": commit(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def processor() -> str:
    """Model name, and the instruction sets that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    known = [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if f in flags]
    family = f" family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else ""
    return f"{fields.get('model name', platform.machine())}{family} ({', '.join(known) or 'plain'})"


def commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    changes = "+changes" if git("status", "--porcelain") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "no commit") + changes


def wait_until_idle(limit: float = 30.0) -> bool:
    """Wait until the machine is at least 90% idle for 0.3 s; False after `limit` seconds of asking."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = processor_times()
        time.sleep(0.3)
        idle, total = (b - a for a, b in zip(before, processor_times(), strict=True))
        if total == 0 or idle / total >= 0.9:
            return True
    return False


def processor_times() -> tuple[int, int]:
    """(idle, all) clock ticks of all processors since the start; (0, 0) where /proc/stat is absent."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0, 0
    ticks = [int(field) for field in first]
    return ticks[3] + ticks[4], sum(ticks)


def ceilings(threads: int) -> dict[str, float]:
    """Sequential read bandwidth (GB/s) and int8 multiply-add peak (10^9 operations/s), measured now."""
    source = ROOT / "bench" / "probe.cc"
    program = peers_folder() / "probe" / "probe"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        compiler = os.environ.get("CXX", "g++")
        options = ["-O3", "-march=native", "-std=c++20", "-pthread", str(source), "-o", str(program)]
        subprocess.run([compiler, *options], check=True)
    done = subprocess.run([str(program), str(threads)], capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in json.loads(done.stdout).items() if name != "threads"}
