"""Strict JSON, which every reader accepts: without NaN and infinity."""

from __future__ import annotations

import json
import math
import sys


def dumps(value: object, encoding: str | None = None) -> str:
    """A value as JSON in one line. An infinity, such as the log-probability of what can't be, is null.

    Characters that `encoding` (standard output's unless given) can't say are escaped. ``ValueError`` for NaN, which is
    nobody's result.
    """
    plain = _plain(value)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding or getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(plain, allow_nan=False)
    return text


def _plain(value: object) -> object:
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError("a result is not a number (NaN), which JSON can't say: the model's numbers leave float32")
        return None if math.isinf(value) else value
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
