"""The packages that corpora need and the base installation doesn't have: Arrow for Parquet, Ray for many machines."""

from __future__ import annotations

from typing import Any


def arrow() -> Any:
    """Return ``pyarrow``. ``ValueError`` says how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise ValueError(
            "corpora are written as Parquet, which needs pyarrow: pip install 'gpt2-np[corpora]'"
        ) from None
    return pyarrow


def parquet() -> Any:
    """Return ``pyarrow.parquet``. ``ValueError`` says how to install it."""
    arrow()
    from pyarrow import parquet

    return parquet


def ray() -> Any:
    """Return ``ray`` with ``ray.data`` loaded. ``ValueError`` says how to install it."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("engine 'ray' needs Ray, which is not installed: pip install 'gpt2-np[ray]'") from None
    return ray
