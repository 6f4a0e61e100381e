"""The arguments that the harness passes: those that a model is made with, and those of a request."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance


def without_device(additional: dict[str, Any] | None) -> dict[str, Any]:
    """Return the harness's arguments without those of the model itself and without torch's device."""
    return {name: value for name, value in (additional or {}).items() if name != "device"}


def is_drawn(request: Instance) -> bool:
    """Tell whether a request asks for a sample, which may differ each time; a temperature alone asks for one."""
    if len(request.args) < 2 or not isinstance(request.args[1], dict):
        return False
    said = request.args[1].get("do_sample")
    return bool(float(request.args[1].get("temperature") or 0) > 0 if said is None else said)


def rows_of(batch_size: int | str | None) -> int | None:
    """The rows that a batch may have at most; None for "auto", "auto:4" and where nothing is said."""
    if batch_size is None or str(batch_size).split(":")[0] == "auto":
        return None
    return whole("batch_size", int(batch_size) if str(batch_size).isdigit() else batch_size, 1, None)


def whole(name: str, value: Any, least: int, most: int | None) -> int:
    """An argument that must be a whole number within a range; ``ValueError`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        rule = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} must be a whole number, {rule}, got {value!r}")
    return value
