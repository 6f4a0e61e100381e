"""Dictionaries from SAELens's files: ``cfg.json`` and ``sae_weights.safetensors``, by folder, hub id or release.

Nothing but safetensors is opened: pickle files can run code, so they are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...system.files import read_object
from ...weights.load import DTYPES, all_finite, as_float32, open_safetensors
from . import config as configuration
from . import releases
from .config import Config
from .dictionary import Dictionary
from .folding import folded, for_use

Array = np.ndarray
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def load(name: str | Path, sae_id: str | None = None) -> Dictionary:
    """A dictionary in float32: from a folder, or from the hub's cache, which it is downloaded into first.

    `name` is a folder with SAELens's two files, a hub id OWNER/NAME, or one of SAELens's releases for GPT-2
    (`releases.RELEASES`); `sae_id` is the sub-folder in the first two cases, the release's own id in the last. "tales"
    is the one that comes with the bundled model. ``ValueError`` or ``OSError``, in one line, says what is wrong or
    missing; ``ConnectionError`` where the hub can't be reached.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.internals import dictionaries
        >>> sae = dictionaries.load("tales")
        >>> logits, cache = model.run_with_cache("The king and the", sae.hook_name)
        >>> features = sae.encode(cache[sae.hook_name])
        >>> sae.decode(features).shape == cache[sae.hook_name].shape
        True
    """
    if str(name) in releases.BUNDLED and sae_id is None:
        return read(releases.BUNDLED[str(name)])
    folder = Path(name).expanduser()
    if folder.is_dir():
        inside = folder if sae_id is None else folder / sae_id
        return read(inside)
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        raise FileNotFoundError(f"there is no folder {text!r}")
    if text in releases.RELEASES:
        if sae_id is None:
            ids = list(releases.RELEASES[text].paths)
            raise ValueError(f"{text} is a release of {len(ids)} dictionaries: give the id of one, such as {ids[0]}")
        return of_release(text, sae_id)
    if "/" not in text:
        raise FileNotFoundError(
            f"there is no folder {text!r}, and no release of SAELens's for GPT-2 has that name; "
            f"the nearest is {releases.nearest(text)!r}"
        )
    return read(releases.from_hub(text, sae_id or ""))


def load_layers(folder: str | Path) -> list[Dictionary]:
    """The dictionaries in a folder's sub-folders, one a layer, in the order of the layers whose activations they write.

    ``ValueError`` or ``FileNotFoundError`` where there is none, where one is broken, or where a layer has two.
    """
    where = Path(folder).expanduser()
    if not where.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    found: dict[int, Path] = {}
    table: dict[int, Dictionary] = {}
    for path in sorted(path.parent for path in where.glob(f"*/{CONFIG}")):
        one = read(path)
        parts = one.hook_name_out.split(".")
        if len(parts) < 2 or parts[0] != "blocks" or not parts[1].isdecimal():
            raise ValueError(f"{path} must write an activation of a layer, got {one.hook_name_out!r}")
        layer = int(parts[1])
        if layer in found:
            raise ValueError(f"a layer has one dictionary, and layer {layer} has {found[layer].name} and {path.name}")
        found[layer], table[layer] = path, one
    if not table:
        raise FileNotFoundError(f"{folder} must hold a folder for each layer with {CONFIG} and {WEIGHTS}, got none")
    return [table[layer] for layer in sorted(table)]


def of_release(release: str, sae_id: str) -> Dictionary:
    """One of a release of SAELens's, with what its list says of it besides.

    A factor that its activations were scaled by in training is folded into the weights, as SAELens does.
    """
    known = releases.RELEASES[release]
    if known.pickled:
        raise ValueError(f"{release} is kept in pickle files, which are never opened: they can run code")
    path = known.path(sae_id)
    found = read(releases.from_hub(known.repository, path), known.overrides)
    factor = known.factors.get(sae_id)
    return found if factor is None else folded(found, factor)


def read(folder: Path, overrides: dict[str, object] | None = None) -> Dictionary:
    """The dictionary in a folder. ``ValueError`` or ``FileNotFoundError`` names what is broken or missing.

    `overrides` take the place of fields of its ``cfg.json``.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}; {instead(folder)}")
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}; {instead(folder)}")
    fields = read_object(path) | (overrides or {})
    try:
        config = configuration.read(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        return for_use(config, tensors(folder / WEIGHTS, config))
    except ValueError as error:
        raise ValueError(f"{folder / WEIGHTS}: {error}") from None


def tensors(path: Path, config: Config) -> dict[str, Array]:
    """Read a file of weights in float32. ``ValueError`` for unknown kinds of numbers, and for NaN."""
    found: dict[str, Array] = {}
    for name, stored in open_safetensors(path).items():
        if stored[0] not in DTYPES:
            raise ValueError(f"{name} must be F32, F16, BF16 or F64, got {stored[0]}")
        if name in config.shapes and stored[1].shape != config.shapes[name]:  # before anything is copied
            raise ValueError(f"{name} must be {config.shapes[name]}, got {stored[1].shape}")
        found[name] = as_float32(stored)
    bad = [name for name, array in found.items() if not all_finite(array)]
    if bad:
        raise ValueError(f"weights must be finite, got NaN or infinity in {', '.join(bad[:20])}")
    return found


def instead(folder: Path) -> str:
    """Describe what a folder without SAELens's files holds, and what would be right."""
    try:
        inside = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*"))
        below = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/{CONFIG}"))
    except OSError as error:
        return f"it can't be listed ({error.strerror})"
    if below:
        return f"its sub-folders do: name one, such as {below[0]!r}"
    if pickled := [name for name in inside if name.endswith((".pt", ".pth", ".bin", ".pkl", ".ckpt"))]:
        return (
            f"it has {pickled[0]!r}, and pickle files are never opened: save the dictionary with SAELens's save_model"
        )
    return f"a dictionary's folder has {CONFIG} beside {WEIGHTS}, as SAELens's save_model writes them"
