"""Evaluation: how good a model is, and what reduced precision costs it.

harness        `HarnessModel`: a model for lm-evaluation-harness, which the `evaluate` extra installs
arguments      the arguments that the harness passes to a model
tasks          tasks by name, run on a model
answer_file    a file that keeps answers, so that an evaluation can be resumed
likelihoods    log-probabilities of many continuations; common prefixes are read once
divergence     reduced precision beside float32: KL divergence, same top tokens, perplexity
published      published figures of the official models, to be checked where weights and data are at hand
__main__       ``python -m gpt2_np.evaluation``: the harness's own command line, with this model registered
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .divergence import Divergence, divergences
    from .harness import HarnessModel
    from .likelihoods import log_likelihoods

__all__ = ["Divergence", "HarnessModel", "divergences", "log_likelihoods"]

MISSING = "{} needs lm-evaluation-harness, which is not installed: pip install 'gpt2-np[evaluate]'"
# Loaded when asked for: lm_eval brings much that the rest does without.
MODULES = {
    "Divergence": "divergence",
    "HarnessModel": "harness",
    "divergences": "divergence",
    "log_likelihoods": "likelihoods",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "lm_eval":
            raise
        raise ModuleNotFoundError(MISSING.format(name), name="lm_eval") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
