"""A model's file with its matrices in BF16: for `peers.py` and `accuracy.py`.

    python bench/as_bf16.py MODEL.gguf MODEL-bf16.gguf

The values are the file's, dequantised by the `gguf` package and rounded to bfloat16; vectors are in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accuracy import dequantised


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    dequantised(arguments.source, arguments.target, bf16=True)


if __name__ == "__main__":
    main()
