"""Tokens in a form that tables and pictures can show."""

from __future__ import annotations

from ..display import visible as visible
