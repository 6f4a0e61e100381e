"""Loading safetensors into `Params`: checked against the configuration, and mapped into memory rather than copied.

Only safetensors are ever opened. Pickle files can run code, so they are refused, with the way to convert one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..model.config import Config
from ..model.params import Params, assemble, shapes
from ..system.files import mapped, release_pages, shards
from ..system.threads import cores, on_threads
from . import header
from .other_weights import instead

Array = np.ndarray

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
KINDS = "F32, F16, BF16 or F64"
# Causal-mask buffers of old checkpoints and the constants of xIELU: no parameters.
BUFFERS = re.compile(r"h\.\d+\.(attn\.(bias|masked_bias)|mlp\.act\.(beta|eps))")
GPT2S = re.compile(r"(transformer\.)?(wte|wpe|ln_f|h\.\d+\.(attn|mlp|ln_1|ln_2))\b.*")
MOST = 40  # errors that one message lists


def load(folder: Path, config: Config, *, to_convert: bool = False) -> Params:
    """Load the parameters in a model's folder, as float32; F32 files are memory-mapped, read-only, and not copied.

    It accepts the official layout, ``save_pretrained``'s (names prefixed ``transformer.``), shards with an index, and
    everything else that transformers' ``GPT2LMHeadModel`` loads as the same model (see `read` and `untie`).
    ``ValueError`` lists every missing, mis-shaped or non-finite tensor at once, followed by tensors that aren't
    GPT-2's, which are otherwise ignored; ``FileNotFoundError`` if the folder has no safetensors. With `to_convert` the
    mapped memory is released tensor by tensor, so that a conversion needs no more memory than its pieces.
    """
    found, strays = read(folder, config, large_pages=not to_convert)
    untied = untie(found, config)
    check(found, strays, config, untied, folder)
    tensors = {name: as_float32(found[name]) for name in found}
    finite: dict[str, bool] = {}

    def look_at(name: str) -> None:
        finite[name] = all_finite(tensors[name])
        if to_convert:
            release_pages(tensors[name])

    on_threads(look_at, sorted(tensors, key=lambda name: -tensors[name].size), cores())
    bad = [name for name in tensors if not finite[name]]
    if bad:
        raise ValueError(f"{folder}: weights must be finite, got NaN or infinity in {', '.join(bad)}")
    return assemble(tensors, config)


def fits(folder: Path, config: Config) -> None:
    """Raise what `load` would for weights that are missing or of other shapes. Only the files' headers are read.

    Whether all numbers are finite is left to `load`.
    """
    found, strays = read(folder, config, large_pages=False)
    check(found, strays, config, untie(found, config), folder)


def read(folder: Path, config: Config, *, large_pages: bool = True) -> tuple[dict[str, tuple[str, Array]], list[str]]:
    """Return a folder's stored tensors by their official names, and the names of those that aren't GPT-2's.

    A name may have the prefix ``transformer.`` once, twice or not at all, as in transformers; other heads, and what
    other savers add, are not part of the language model. ``ValueError`` for a tensor that is stored twice with
    different values.
    """
    opened = [(file, open_safetensors(file, large_pages=large_pages)) for file in files(folder)]
    layers = min(config.n_layer, 1 + sum(len(tensors) for _, tensors in opened))  # n_layer may be any number
    ours = {*shapes(replace(config, n_layer=layers)), "lm_head.weight"}
    found: dict[str, tuple[str, Array]] = {}
    strays = []
    for file, tensors in opened:
        for name, tensor in tensors.items():
            official = official_name(name, ours)
            if official is None:
                if not BUFFERS.fullmatch(name.removeprefix("transformer.").removeprefix("transformer.")):
                    strays.append(name.removeprefix("transformer."))
            elif official in found and not alike(found[official], tensor):
                raise ValueError(f"{file}: tensor {official} is there twice, with different values")
            else:
                found[official] = tensor
    return found, strays


def official_name(name: str, ours: Collection[str]) -> str | None:
    """Return which of `ours` transformers loads a stored tensor as; None if it ignores the tensor."""
    once = name.removeprefix("transformer.")
    twice = once.removeprefix("transformer.")
    if once in ours:
        return once
    return twice if twice in ours and twice != "lm_head.weight" else None


def alike(one: tuple[str, Array], other: tuple[str, Array]) -> bool:
    """Tell whether two stored tensors are bitwise equal."""
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model: one, or the shards that the index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        names = shards(index)
        for shard in names:
            if not (folder / shard).is_file():
                raise FileNotFoundError(f"{folder}: shard {shard!r} is missing; the index names it")
        return [folder / shard for shard in names]
    raise FileNotFoundError(instead(folder))


def open_safetensors(path: Path, *, large_pages: bool = True) -> dict[str, tuple[str, Array]]:
    """Return every tensor of a file as (stored dtype, read-only view of the mapped file). Only the header is read.

    The header is checked first (sizes, overlaps, offsets); ``ValueError`` names the file if it is truncated or damaged.
    """
    entries = header.read(path).tensors
    data = mapped(path, large_pages=large_pages)
    if data.nbytes < max((entry.stop for entry in entries.values()), default=0):
        raise ValueError(f"{path} became shorter while it was read")
    tensors = {}
    for name, (stored, shape, start, stop) in entries.items():
        raw = data[start:stop]
        tensors[name] = stored, raw.view(DTYPES[stored]).reshape(shape) if stored in DTYPES else raw
    return tensors


def floats(path: Path) -> dict[str, Array]:
    """Return every tensor of a file of floating-point numbers, in new memory; BF16 becomes float32.

    ``ValueError`` names the file if it is damaged, and a tensor of any other dtype.
    """
    found = {}
    for name, (stored, tensor) in open_safetensors(path, large_pages=False).items():
        if stored not in DTYPES:
            raise ValueError(f"{path}: {name} must be {KINDS}, got {stored}")
        found[name] = as_float32((stored, tensor)) if stored == "BF16" else np.array(tensor)
    return found


def untie(found: dict[str, tuple[str, Array]], config: Config) -> bool:
    """Tell whether the head is a matrix of its own; a stored copy of a tied ``wte.weight`` is removed from `found`.

    A configuration that ties, with a head in the file that differs, means an untied head (as in transformers); one
    with the head alone, as ``save_model`` of safetensors may leave it, means that the embedding is the same matrix.
    """
    if not config.tie_word_embeddings:
        return True
    if "lm_head.weight" not in found:
        return False
    if "wte.weight" not in found:
        found["wte.weight"] = found.pop("lm_head.weight")
        return False
    if not alike(found["lm_head.weight"], found["wte.weight"]):
        return True
    del found["lm_head.weight"]
    return False


def check(
    found: dict[str, tuple[str, Array]], strays: Sequence[str], config: Config, untied: bool, folder: Path
) -> None:
    """Raise ``ValueError`` with everything that is wrong, in one line. Unknown tensors alone are no error."""
    fault = f"{folder}: the weights don't fit config.json"
    if not found and strays:
        raise ValueError(f"{fault}: no tensor has a name of GPT-2's, such as wte.weight; {foreign(strays)}")
    layers = {name.split(".")[1] for name in found if name.startswith("h.")}
    if config.n_layer > max(1, 2 * len(layers)):  # a list of what is missing would say less, and may have no end
        also = f"; unexpected {strays[0]}" if strays else ""
        raise ValueError(f"{fault}: n_layer is {config.n_layer}, but there are tensors of {len(layers)} layers{also}")
    expected = shapes(config)
    if untied:
        expected["lm_head.weight"] = (config.vocab_size, config.n_embd)
    problems = [f"missing {name}" for name in expected if name not in found]
    for name, shape in expected.items():
        stored, tensor = found.get(name, ("F32", None))
        if stored not in DTYPES:
            problems.append(f"{name} must be {KINDS}, got {stored}")
        elif tensor is not None and tensor.shape != shape:
            problems.append(f"{name} must be {shape}, got {tensor.shape}")
    if problems:
        problems = [*problems[:MOST], *(f"unexpected {name}" for name in strays[:MOST])]
        raise ValueError(f"{fault}: {'; '.join(problems)}")


def foreign(strays: Sequence[str]) -> str:
    """Describe a file of unknown tensors: a prefix that some saver put before every name, or other names."""
    for name in strays:
        if known := GPT2S.search(name):
            prefix = name[: known.start()]
            return f"the file has {name!r}: take the prefix {prefix!r} off its names"
    return f"the file has {strays[0]!r}"


def as_float32(stored: tuple[str, Array]) -> Array:
    """Return a tensor as float32: the mapped file itself if it is aligned F32, otherwise a converted copy."""
    kind, tensor = stored
    if kind == "BF16":
        return (tensor.astype(np.uint32, order="C") << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, which `load` refuses by name
        return np.require(tensor, np.float32, ["C", "A"])


def all_finite(tensor: Array) -> bool:
    """Tell whether no element is NaN or infinite. One pass at memory bandwidth: a sum propagates both."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = tensor.sum()
    return bool(np.isfinite(total) or np.isfinite(tensor).all())
