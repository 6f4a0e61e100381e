"""Decoding strategies in pure NumPy: they know neither text nor GPT-2, only a `Stepper`."""

from .base.interface import Completion, LogitsProcessor, RewindableStepper, Stepper, Stopping, Token
from .generate import generate, stream
from .options import Options

PROJECT = "gpt2-np"  # PyPI has another package called decoders: by this line gpt2_np knows its own

__all__ = [
    "Completion",
    "LogitsProcessor",
    "Options",
    "RewindableStepper",
    "Stepper",
    "Stopping",
    "Token",
    "generate",
    "stream",
]
