"""Low-rank adapters (Hu et al. 2021, "LoRA"), in the files of the PEFT library.

An adapted matrix computes x·W + s·(x·Aᵀ)·Bᵀ, with A (rank, inputs), B (outputs, rank) and s = alpha ÷ rank. W is
(inputs, outputs), which PEFT calls ``fan_in_fan_out``.

    adapter_config.json         rank, alpha, which matrices
    adapter_model.safetensors   base_model.model.transformer.h.0.attn.c_attn.lora_A.weight, … lora_B.weight
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..display import Readable
from ..model.arrays import Array, Weight
from ..model.config import Config
from ..model.params import Params, as_array, matrices, shapes, with_weights
from ..system.files import read_json, write_whole
from ..text.gpt2 import GPT2
from ..weights.load import as_float32, open_safetensors
from ..weights.save import as_json, safetensors

CONFIG, TENSORS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model.transformer."
PARTS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # in the order of `params.matrices`
# Settings of PEFT that are not supported here.
REFUSED = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias", "trainable_token_indices")


@dataclass(frozen=True, eq=False, repr=False)
class Adapters(Readable):
    """Adapters of some matrices: ``tensors["h.0.attn.c_attn.lora_A.weight"]`` is (rank, inputs), B (outputs, rank)."""

    tensors: Mapping[str, Array]
    rank: int
    alpha: float
    use_rslora: bool = False

    @property
    def scale(self) -> float:
        """s: alpha ÷ rank, or ÷ √rank with ``use_rslora`` (Kalajdzievski 2023)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def of(self, layer: int, part: str) -> tuple[Array, Array] | None:
        """Return A and B of one matrix; None if it isn't adapted."""
        name = f"h.{layer}.{part}.lora_"
        return (
            (self.tensors[f"{name}A.weight"], self.tensors[f"{name}B.weight"])
            if f"{name}A.weight" in self.tensors
            else None
        )


@dataclass(frozen=True, eq=False, repr=False)
class Apart(Readable):
    """A matrix and its adapter, kept apart: it replaces the array in ``Linear.weight``."""

    weight: Weight
    A: Array
    B: Array
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        return self.A.shape[1], self.B.shape[0]

    @property
    def size(self) -> int:
        """The number of weights, including the adapter's."""
        return self.weight.size + self.A.size + self.B.size

    @property
    def nbytes(self) -> int:
        """The number of bytes that each product reads."""
        return self.weight.nbytes + self.A.nbytes + self.B.nbytes

    def product(self, x: Array) -> Array:
        """Return x·W + s·(x·Aᵀ)·Bᵀ."""
        y = x @ self.weight if isinstance(self.weight, np.ndarray) else self.weight.product(x)
        return y + ((x @ self.A.T) @ self.B.T) * self.scale

    def dequantize(self) -> Array:
        """Return the matrix that both together represent: (inputs, outputs)."""
        return as_array(self.weight) + (self.A.T @ self.B.T) * self.scale


def initial(config: Config, rank: int, alpha: float, seed: int, parts: Sequence[str] = ("attn.c_attn",)) -> Adapters:
    """New adapters, as PEFT begins them: A uniform in ±√(3 ÷ inputs) · √(1 ÷ 3), Kaiming's with a = √5; B zero.

    So the adapted model starts as the model itself. ``ValueError`` for a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"lora_rank must be at least 1, got {rank}")
    random, table, tensors = np.random.default_rng([seed, 1]), shapes(config), {}
    for layer in range(config.n_layer):
        for part in parts:
            inputs, outputs = table[f"h.{layer}.{part}.weight"]
            bound = 1 / math.sqrt(inputs)
            A = random.uniform(-bound, bound, (rank, inputs)).astype(np.float32)
            tensors[f"h.{layer}.{part}.lora_A.weight"] = A
            tensors[f"h.{layer}.{part}.lora_B.weight"] = np.zeros((outputs, rank), np.float32)
    return Adapters(tensors, rank, alpha)


def adapted(params: Params, adapters: Adapters, *, merge: bool = True) -> Params:
    """Return the parameters with adapters: merged into the matrices, or beside them (`Apart`). The rest is shared."""

    def with_adapter(weight: Weight, layer: int, part: str) -> Weight:
        pair = adapters.of(layer, part)
        if pair is None:
            return weight
        A, B = (x.astype(params.ln_f.weight.dtype, copy=False) for x in pair)
        apart = Apart(weight, A, B, adapters.scale)
        return apart.dequantize() if merge else apart

    blocks = []
    for layer, block in enumerate(params.h):
        parts = zip(matrices(block), PARTS, strict=True)
        blocks.append(with_weights(block, [with_adapter(one.weight, layer, part) for one, part in parts]))
    return params._replace(h=tuple(blocks))


def with_adapters(model: GPT2, adapters: Adapters | str | Path, *, merge: bool = True) -> GPT2:
    """A model with adapters, or those in a folder. This one stays as it is.

    Merged, it is as fast as any model; kept apart, it costs no copy of the matrices, works on weights of a reduced
    precision, and takes the readable path. ``ValueError`` where they don't fit the model, or for merging into reduced
    weights.
    """
    chosen = adapters if isinstance(adapters, Adapters) else load(adapters, model.config)
    check(chosen, model.config)
    if merge and not isinstance(model.params.h[0].attn.c_attn.weight, np.ndarray):
        raise ValueError("adapters are merged into float32 or float64 weights; keep them apart (merge=False) on others")
    backend = model.backend if merge else "numpy"
    changed = GPT2(adapted(model.params, chosen, merge=merge), model.config, folder=model.folder, backend=backend)
    changed.tap = model.tap
    return changed


def gradients(grads: Params, adapters: Adapters) -> dict[str, Array]:
    """Return the gradients of A and B, given those of the merged matrices: ∂A = s·(∂W·B)ᵀ, ∂B = s·(A·∂W)ᵀ."""
    found: dict[str, Array] = {}
    for layer, block in enumerate(grads.h):
        for one, part in zip(matrices(block), PARTS, strict=True):
            pair = adapters.of(layer, part)
            if pair is not None:
                weight = as_array(one.weight)
                A, B = (x.astype(weight.dtype, copy=False) for x in pair)
                name = f"h.{layer}.{part}.lora_"
                found[f"{name}A.weight"] = np.ascontiguousarray((weight @ B).T * adapters.scale, A.dtype)
                found[f"{name}B.weight"] = np.ascontiguousarray((A @ weight).T * adapters.scale, B.dtype)
    return {name: found[name] for name in adapters.tensors}


def replaced(adapters: Adapters, tensors: Mapping[str, Array]) -> Adapters:
    """Return the same adapters with other numbers."""
    return replace(adapters, tensors=tensors)


def check(adapters: Adapters, config: Config) -> None:
    """Raise ``ValueError``, which names the first tensor that fits no matrix of the model."""
    table = shapes(config)
    for name, array in adapters.tensors.items():
        module, _, kind = name.rpartition(".lora_")
        inputs, outputs = table.get(f"{module}.weight", (0, 0)) if module.endswith(PARTS) else (0, 0)
        expected = {"A.weight": (adapters.rank, inputs), "B.weight": (outputs, adapters.rank)}.get(kind)
        other = f"{module}.lora_{'B' if kind.startswith('A') else 'A'}.weight"
        if expected is None or not inputs or other not in adapters.tensors:
            raise ValueError(f"{name} is no adapter of a matrix of this model; those are in {', '.join(PARTS)}")
        if array.shape != expected:
            raise ValueError(f"{name} must have the shape {expected}, got {array.shape}")


def load(folder: str | Path, config: Config) -> Adapters:
    """Load adapters from PEFT's files. ``ValueError`` or ``OSError``, in one line, for unreadable or unsupported
    ones.
    """
    folder = Path(folder)
    path = folder / CONFIG
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.get("peft_type") != "LORA":
        raise ValueError(f"{path} must describe adapters of peft_type LORA")
    on = [name for name in REFUSED if fields.get(name)] + (["bias"] if fields.get("bias", "none") != "none" else [])
    if on:
        raise ValueError(f"{path}: {on[0]} is set to {fields[on[0]]!r}, which is not supported here")
    rank, alpha = fields.get("r"), fields.get("lora_alpha", 8)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path}: r must be a whole number of at least 1, got {rank!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ValueError(f"{path}: lora_alpha must be a number, got {alpha!r}")
    if not (folder / TENSORS).is_file():
        raise FileNotFoundError(f"{folder} holds no {TENSORS}")
    tensors = {}
    for name, stored in open_safetensors(folder / TENSORS).items():
        official = re.sub(r"\.lora_([AB])\.default\.weight$", r".lora_\1.weight", name).removeprefix(PREFIX)
        if stored[0] not in ("F32", "F16", "BF16"):
            raise ValueError(f"{folder / TENSORS}: {name} must be F32, F16 or BF16, got {stored[0]}")
        tensors[official] = as_float32(stored)
        if not np.isfinite(tensors[official]).all():
            raise ValueError(f"{folder / TENSORS}: {name} must be finite")
    adapters = Adapters(tensors, rank, float(alpha), bool(fields.get("use_rslora")))
    check(adapters, config)
    return adapters


def save(folder: Path, adapters: Adapters, base: str | None = None) -> None:
    """Write adapters as PEFT does; `base` is the name of the model that they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.split(".lora_")[0].split(".", 2)[2] for name in adapters.tensors})
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "fan_in_fan_out": True,
        "bias": "none",
        "use_rslora": adapters.use_rslora,
        "inference_mode": True,
    }
    tensors = {f"{PREFIX}{name}": array for name, array in adapters.tensors.items()}
    write_whole(folder / TENSORS, safetensors(tensors))
    write_whole(folder / CONFIG, as_json(fields))
