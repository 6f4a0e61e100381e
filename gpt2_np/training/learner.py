"""The trained arrays: all of a model's parameters, or adapters beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..display import Readable
from ..model.params import Params, assemble, check_shapes, map_arrays
from ..system.memory import empty
from ..text.gpt2 import GPT2
from ..text.save import copy_besides, save_pretrained
from ..weights.load import open_safetensors
from . import low_rank
from .settings import Settings

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Learner(Readable):
    """`trained` is the tree of arrays that AdamW changes: `Params`, or the tensors of adapters to ``base.params``."""

    base: GPT2
    trained: Any
    adapters: low_rank.Adapters | None = None
    name: str | None = None

    def model(self) -> GPT2:
        """Return the model in its current state."""
        params = self.trained
        if self.adapters is not None:
            params = low_rank.adapted(self.base.params, low_rank.replaced(self.adapters, self.trained))
        return GPT2(params, self.base.config, folder=self.base.folder, backend=self.base.backend)

    def gradients(self, of_params: Params) -> Any:
        """Return the gradients of the trained arrays, given those of the parameters."""
        if self.adapters is None:
            return of_params
        return low_rank.gradients(of_params, low_rank.replaced(self.adapters, self.trained))

    def write(self, folder: Path) -> None:
        """Write the model's files, or the adapters', into a folder."""
        if self.adapters is None:
            save_pretrained(folder, self.trained, self.base.config, self.base.folder)
            return
        low_rank.save(folder, low_rank.replaced(self.adapters, self.trained), self.name)
        if self.base.folder is not None:
            copy_besides(self.base.folder, folder, self.base.config)


def learner(model: GPT2, settings: Settings, saved: Path | None, name: str | None = None) -> Learner:
    """Return the `Learner` for the start of a run, or from a checkpoint.

    ``ValueError`` for weights of reduced precision.
    """
    if not isinstance(model.params.h[0].attn.c_attn.weight, np.ndarray):
        raise ValueError("training needs weights in float32 or float64, got a reduced precision")
    if settings.lora_rank:
        alpha = settings.lora_alpha or 2.0 * settings.lora_rank
        adapters = low_rank.initial(model.config, settings.lora_rank, alpha, settings.seed)
        if saved is not None:
            adapters = low_rank.load(saved, model.config)
        return Learner(model, {key: own(x) for key, x in adapters.tensors.items()}, adapters, name)
    params = model.params if saved is None else read_params(saved, model)
    return Learner(model, map_arrays(params, own))


def read_params(saved: Path, model: GPT2) -> Params:
    """Read a checkpoint's parameters, in their stored dtype. ``ValueError`` names a file of other ones."""
    path = saved / "model.safetensors"
    tensors = open_safetensors(path)
    wrong = next((name for name, (kind, _) in tensors.items() if kind not in ("F32", "F64")), None)
    if wrong is not None:
        raise ValueError(f"{path}: {wrong} must be F32 or F64, got {tensors[wrong][0]}")
    try:
        params = assemble({name.removeprefix("transformer."): x for name, (_, x) in tensors.items()}, model.config)
        check_shapes(params, model.config)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}, which the model has") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return params


def own(array: Array) -> Array:
    """Return a writable copy in row-major order, whatever the array's own: so every run sums in the same order."""
    copy = empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy
