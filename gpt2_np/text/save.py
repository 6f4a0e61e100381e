"""Saving a model's folder as transformers does: configuration, weights, and the tokenizer's files."""

from __future__ import annotations

from pathlib import Path

from ..model.config import Config
from ..model.params import Params
from ..system.files import resolved, write_whole
from ..weights.hub import EXTRAS
from ..weights.save import save_model
from .tokenizer import Tokenizer
from .tokenizer_files import PAIRS

# Further files that are copied as they are: the tokenizer's files and generation's defaults.
BESIDES = ("tokenizer.json", *PAIRS[0], *EXTRAS)


def save_pretrained(folder: Path, params: Params, config: Config, source: Path | None = None) -> None:
    """Implement `GPT2.save_pretrained`; `source` is the folder that the model came from, or None."""
    save_model(folder, params, config, source)
    if source is not None and resolved(source) != resolved(folder):
        copy_besides(source, folder, config)


def copy_besides(source: Path, folder: Path, config: Config) -> None:
    """Copy the tokenizer's files, if there are any; a ``tokenizer.json`` is made of those that transformers doesn't
    read.
    """
    for name in BESIDES:
        if (source / name).is_file():
            write_whole(folder / name, (source / name).read_bytes())
    vocabulary, merges = PAIRS[-1]
    readable = (source / "tokenizer.json").is_file() or all((source / name).is_file() for name in PAIRS[0])
    if not readable and (source / vocabulary).is_file() and (source / merges).is_file():
        write_whole(folder / "tokenizer.json", Tokenizer.from_folder(source, config).inner.to_str().encode())
