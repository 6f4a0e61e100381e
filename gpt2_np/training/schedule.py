"""Learning-rate schedules: transformers' by their names, relative to the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable


def constant(step: float, warmup_steps: float, steps: float) -> float:
    """Return 1 from the first step on, without warm-up."""
    return 1.0


def constant_with_warmup(step: float, warmup_steps: float, steps: float) -> float:
    """Rise linearly to 1 and stay there."""
    return step / warmup_steps if step < warmup_steps else 1.0


def linear(step: float, warmup_steps: float, steps: float) -> float:
    """Rise linearly to 1, then fall linearly to 0."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (steps - step) / left(warmup_steps, steps))


def cosine(step: float, warmup_steps: float, steps: float) -> float:
    """Rise linearly to 1, then fall to 0 as half a cosine (Loshchilov & Hutter 2017, eq. 5)."""
    return cosine_with_min_lr(step, warmup_steps, steps, 0.0)


def cosine_with_min_lr(step: float, warmup_steps: float, steps: float, min_lr_rate: float = 0.1) -> float:
    """Rise linearly to 1, then fall to `min_lr_rate` as half a cosine."""
    if step < warmup_steps:
        return step / warmup_steps
    wave = 0.5 * (1 + math.cos(math.pi * progress(step, warmup_steps, steps)))
    return wave * (1 - min_lr_rate) + min_lr_rate


def inverse_sqrt(step: float, warmup_steps: float, steps: float) -> float:
    """Rise linearly to 1, then fall as 1/√step (Vaswani et al. 2017, section 5.3)."""
    timescale = warmup_steps or 10_000
    return step / warmup_steps if step < warmup_steps else 1 / math.sqrt((step + timescale - warmup_steps) / timescale)


def progress(step: float, warmup_steps: float, steps: float) -> float:
    """Return the completed share of the way from the end of the warm-up to the end of the run: 0 … 1."""
    return (step - warmup_steps) / left(warmup_steps, steps)


def left(warmup_steps: float, steps: float) -> float:
    """Return the number of steps after the warm-up, or 1 if there are none."""
    return steps - warmup_steps if steps > warmup_steps else 1


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "linear": linear,
    "cosine": cosine,
    "cosine_with_min_lr": cosine_with_min_lr,
    "inverse_sqrt": inverse_sqrt,
}


def share(name: str, step: float, warmup_steps: float, steps: float) -> float:
    """Return the learning rate, relative to its peak, at a step counted from 0; `name` is as in ``lr_scheduler_type``.

    ``ValueError`` for a name that isn't known here.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    return SCHEDULES[name](step, warmup_steps, steps)
