"""The tokenizer that takes over where the tokenizers library is missing, beside the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt2_np.model.config import Config
from gpt2_np.text import own_tokenizer, tokenizer_files
from gpt2_np.text.tokenizer import Tokenizer


def plain_tokenizer(folder: Path, config: Config | None = None) -> Tokenizer:
    """The tokenizer of a folder as it is made without the library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_files, "library", lambda: own_tokenizer)
        tokenizer = Tokenizer.from_folder(folder, config)
    assert isinstance(tokenizer.inner, own_tokenizer.OwnTokenizer)
    return tokenizer
