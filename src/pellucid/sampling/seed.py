"""A seed for a request that gave none."""

from __future__ import annotations

import os


def fresh_seed() -> int:
    """53 bits from the system: any JSON reader keeps them exactly. (`secrets` would import hashlib for it.)"""
    return int.from_bytes(os.urandom(7)) >> 3
