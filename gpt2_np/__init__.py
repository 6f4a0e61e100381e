"""GPT-2 in NumPy with Numba kernels: the same tokens as torch, without torch.

from gpt2_np import GPT2
model = GPT2.from_pretrained()
print(model.generate("Once upon a time", max_new_tokens=100).text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .model.config import Config
    from .text.gpt2 import GPT2
    from .text.results import Generation
    from .text.scoring import Choice, Score

__all__ = ["GPT2", "Choice", "Config", "Generation", "Score", "__version__"]

# Loaded when asked for: so the command line is there, to answer Ctrl-C, before NumPy is.
MODULES = {
    "Choice": "text.scoring",
    "Config": "model.config",
    "GPT2": "text.gpt2",
    "Generation": "text.results",
    "Score": "text.scoring",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{MODULES[name]}", __name__)
    except Exception:
        from .system.packages import foreign_decoders

        why = foreign_decoders()
        if why is None:
            raise
        raise ImportError(why) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
