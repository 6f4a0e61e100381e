"""GPT-2 in NumPy with Numba kernels: the same tokens as torch, without torch.

    from gpt2_np import GPT2
    model = GPT2.from_pretrained()
    print(model.generate("Once upon a time", max_new_tokens=100).text)
"""

from .config import Config
from .scoring import Choice, Score
from .text import GPT2, Generation
from .version import __version__

__all__ = ["GPT2", "Choice", "Config", "Generation", "Score", "__version__"]
