"""safetensors → `Params`: checked against the configuration, mapped into memory rather than copied.

Nothing but safetensors is ever opened. Pickle files can run code, so they are refused with the way to convert one.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from .config import Config
from .files import let_go, mapped, shards
from .params import Params, assemble, shapes

Array = np.ndarray

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
MATRICES = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
# Causal-mask buffers of old checkpoints and the constants of xIELU: no parameters.
BUFFERS = re.compile(r"h\.\d+\.(attn\.(bias|masked_bias)|mlp\.act\.(beta|eps))")
HOW_TO_CONVERT = (
    'convert it where torch is installed: python -c "from transformers import GPT2LMHeadModel as M; '
    "M.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
)


def load(folder: Path, config: Config, *, to_convert: bool = False) -> Params:
    """The parameters in a model's folder, as float32; F32 files are memory-mapped, read-only, and not copied.

    Accepts the official layout, ``save_pretrained``'s (names prefixed ``transformer.``) and shards with an index.
    ``ValueError`` lists every missing, unexpected, mis-shaped or not finite tensor at once; ``FileNotFoundError``
    when the folder has no safetensors. With `to_convert` the process doesn't hold on to the mapped memory, tensor by
    tensor: what is converted piece by piece then needs no more than the pieces.
    """
    found = {}
    for file in files(folder):
        for name, tensor in open_safetensors(file, large_pages=not to_convert).items():
            official = name.removeprefix("transformer.")
            if BUFFERS.fullmatch(official):
                continue
            if official in found:
                raise ValueError(f"{file}: tensor {official} is there twice")
            found[official] = tensor
    untied = untie(found, config)
    check(found, config, untied, folder)
    tensors = {name: as_float32(found[name], outputs_down=bool(MATRICES.search(name))) for name in found}
    bad = []
    for name, array in tensors.items():
        if not all_finite(array):
            bad.append(name)
        if to_convert:
            let_go(array)
    if bad:
        raise ValueError(f"{folder}: weights must be finite, got NaN or infinity in {', '.join(bad)}")
    return assemble(tensors, config)


def files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model: one, or the shards that the index names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        names = shards(index)
        for shard in names:
            if not (folder / shard).is_file():
                raise FileNotFoundError(f"{folder}: shard {shard!r} is missing; the index names it")
        return [folder / shard for shard in names]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*")) + sorted(folder.glob("*.ckpt*"))
    if pickled:
        raise FileNotFoundError(
            f"{folder} holds {pickled[0].name} but no model.safetensors; pickle files are never "
            f"opened; {HOW_TO_CONVERT}"
        )
    raise FileNotFoundError(f"{folder} holds no model.safetensors")


def open_safetensors(path: Path, *, large_pages: bool = True) -> dict[str, tuple[str, Array]]:
    """Every tensor of a file as (stored dtype, read-only view of the mapped file). Reads the header only.

    The safetensors library judges the header first (sizes, overlaps, offsets); ``ValueError`` names the file when
    it is truncated or damaged.
    """
    with path.open("rb") as file:  # OSError tells why when it can't be read
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a sound safetensors file: {error}") from None
        header_size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(header_size))
    data = mapped(path, large_pages=large_pages)
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if data.nbytes < 8 + header_size + max(ends, default=0):
        raise ValueError(f"{path} became shorter while it was read")
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + header_size + offset for offset in entry["data_offsets"])
        raw, stored = data[start:end], entry["dtype"]
        tensors[name] = stored, raw.view(DTYPES[stored]).reshape(entry["shape"]) if stored in DTYPES else raw
    return tensors


def untie(found: dict[str, tuple[str, Array]], config: Config) -> bool:
    """Whether the head is a matrix of its own; a stored copy of a tied ``wte.weight`` is dropped from `found`.

    A configuration that ties, with a head in the file that differs, means an untied head (as in transformers).
    """
    if not config.tie_word_embeddings:
        return True
    if "lm_head.weight" not in found or "wte.weight" not in found:
        return False
    (_, head), (_, wte) = found["lm_head.weight"], found["wte.weight"]
    if not np.array_equal(head, wte):
        return True
    del found["lm_head.weight"]
    return False


def check(found: dict[str, tuple[str, Array]], config: Config, untied: bool, folder: Path) -> None:
    """``ValueError`` with everything that is wrong, in one line."""
    layers = {name.split(".")[1] for name in found if name.startswith("h.")}
    if config.n_layer > max(1, 2 * len(layers)):  # a list of what is missing would say less, and may have no end
        raise ValueError(
            f"{folder}: the weights don't fit config.json: n_layer is {config.n_layer}, but there are "
            f"tensors of {len(layers)} layers"
        )
    expected = shapes(config)
    if untied:
        expected["lm_head.weight"] = (config.vocab_size, config.n_embd)
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    for name, shape in expected.items():
        stored, tensor = found.get(name, ("F32", None))
        if stored not in DTYPES:
            problems.append(f"{name} must be F32, F16, BF16 or F64, got {stored}")
        elif tensor is not None and tensor.shape != shape:
            problems.append(f"{name} must be {shape}, got {tensor.shape}")
    if problems:
        raise ValueError(f"{folder}: the weights don't fit config.json: {'; '.join(problems)}")


def as_float32(stored: tuple[str, Array], *, outputs_down: bool = False) -> Array:
    """A tensor as float32: the mapped file itself where it is aligned F32, otherwise a converted copy.

    A copy of a matrix lies as the kernels read it (`layout`), outputs down.
    """
    kind, tensor = stored
    if outputs_down and not (kind == "F32" and tensor.flags.aligned):
        return as_float32((kind, tensor.T)).T
    if kind == "BF16":
        return (tensor.astype(np.uint32, order="C") << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, which `load` refuses by name
        return np.require(tensor, np.float32, ["C", "A"])


def all_finite(tensor: Array) -> bool:
    """Whether no element is NaN or infinite. One pass at the speed of memory: a sum keeps what it meets."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = tensor.sum()
    return bool(np.isfinite(total) or np.isfinite(tensor).all())
