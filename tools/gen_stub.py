#!/usr/bin/env python3
"""Write src/pellucid/_native.pyi, which mypy reads, from the compiled module: after a change of native/bind/.

nanobind's own generator does the work; this makes its output readable and strict: array annotations are cut
down to their element type, bare generics get arguments.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from nanobind.stubgen import StubGen

from pellucid import _native

TARGET = Path(__file__).resolve().parents[1] / "src" / "pellucid" / "_native.pyi"

# What nanobind writes -> what it means to mypy. Shape, order and device are checked by the binding itself.
REWRITES = [
    (r"Annotated\[(NDArray\[[\w.]+\]), dict\([^()]*(?:\([^()]*\)[^()]*)*\)\]", r"\1"),
    (r"Annotated\[NDArray, dict\([^()]*(?:\([^()]*\)[^()]*)*\)\]", "NDArray[Any]"),
    (r"\bNDArray\b(?!\[)(?=[,)\s:|\]])", "NDArray[Any]"),
    (r"\b(list|set|frozenset|Sequence)\b(?=[\s,)\]:|]|$)", r"\1[Any]"),
    (r"\btuple\b(?=[\s,)\]:|]|$)", "tuple[Any, ...]"),
    (r"\bdict\b(?=[\s,)\]:|]|$)", "dict[str, Any]"),
    (r"(?<=[\[ ])(?<!def )bytes\b", "builtins.bytes"),
    (r"\bnumpy\.", "np."),
]


def stub() -> str:
    generator = StubGen(module=_native, recursive=False, include_docstrings=True, quiet=True)
    generator.put(_native)
    lines = []
    for line in generator.get().splitlines():
        is_import = line.startswith(("import ", "from "))
        if not is_import and re.match(r"\s*(def |\w+\s*:|[()\w]*\s*->)", line):
            for pattern, replacement in REWRITES:
                line = re.sub(pattern, replacement, line)
        if not is_import:
            lines.append(line.rstrip())
    body = "\n".join(lines).strip("\n")
    head = '"""Made by tools/gen_stub.py from the compiled module; see native/bind/."""\n\n'
    body = re.sub(r'\A""".*?"""\n+', "", body, flags=re.S)
    imports = [
        ("builtins", "import builtins\n"),
        ("Sequence", "from collections.abc import Sequence\n"),
        ("Mapping", "from collections.abc import Mapping\n"),
        ("Callable", "from collections.abc import Callable\n"),
        ("Any", "from typing import Any\n"),
        ("overload", "from typing import overload\n"),
        ("np", "\nimport numpy as np\n"),
        ("NDArray", "from numpy.typing import NDArray\n"),
    ]
    needed = "".join(text for name, text in imports if re.search(rf"\b{name}\b", body))
    return f"{head}{needed}\n{body}\n"


if __name__ == "__main__":
    TARGET.write_text(stub(), encoding="utf-8")
    subprocess.run(["ruff", "format", "--quiet", str(TARGET)], check=True)
    print(f"{TARGET}: written")
