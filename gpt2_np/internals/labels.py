"""Tokens as a table or a picture can show them."""

from __future__ import annotations

from ..display import visible as visible
