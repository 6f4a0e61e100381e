"""Draft models for assisted generation: given by name, as a model, or as what makes steppers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..model.choices import BACKENDS
from ..session.model import Model
from . import translation
from .requests import NAMED, check_assistant


def drafting(model: Any, assistant: Any, load: Callable[..., Any]) -> Any:
    """Return what makes the draft model's steppers; `load` makes a model of a name.

    A model of another vocabulary is asked through both tokenizers (see `translation`). ``ValueError`` where that needs
    a tokenizer that isn't there.
    """
    if isinstance(assistant, NAMED):
        assistant = load(assistant, backend=model.backend if model.backend in BACKENDS else None)
    if not isinstance(assistant, Model):
        return assistant
    drafts: Any = assistant
    sizes = model.config.vocab_size, assistant.config.vocab_size
    both = model.has_tokenizer and getattr(drafts, "has_tokenizer", False)
    if both and assistant.folder != model.folder:
        between = translation.between(model.tokenizer, drafts.tokenizer, *sizes)
        return assistant.start if between is None else partial(translation.Translated, assistant.start, between)
    check_assistant(assistant.config.vocab_size, model.config.vocab_size)
    return assistant.start
