"""Encoding and decoding: activations of a model as a few of many features, and back.

Shape letters: D what it reads (``d_in``), F the number of features (``d_sae``), O what it writes (``d_out``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ...display import arrays, boxed, table
from ...engine.threaded import in_pieces
from ...gradients import products
from ...system.memory import empty
from . import activation_functions
from .config import Config
from .normalisation import Scale, gradient, normalise
from .products import implementation, product

Array = np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Coder:
    """Features and their directions, frozen: `config`, and `tensors` by SAELens's names, in its layout.

    ``W_enc`` (D, F), ``b_enc`` (F,), ``W_dec`` (F, O), ``b_dec`` (O,); ``threshold`` (F,) of JumpReLU; ``b_gate``,
    ``b_mag`` and ``r_mag`` (F,) of a gated one, which has no ``b_enc``; ``W_skip`` (O, D). ``ValueError`` for tensors
    that are missing, mis-shaped or none of these.
    """

    config: Config
    tensors: Mapping[str, Array]

    def __post_init__(self) -> None:
        expected = self.config.shapes
        problems = [f"missing {name}" for name in expected if name not in self.tensors]
        for name, tensor in self.tensors.items():
            if name not in expected:
                problems.append(f"unexpected {name}")
            elif tensor.shape != expected[name]:
                problems.append(f"{name} must be {expected[name]}, got {tensor.shape}")
        if problems:
            raise ValueError(f"the weights don't fit the configuration: {'; '.join(problems[:20])}")

    def __repr__(self) -> str:
        config = self.config
        names = ", ".join(f"{name} {tensor.shape}" for name, tensor in self.tensors.items())
        return (
            f"{type(self).__name__}({config.architecture}, {config.d_sae:,} features of "
            f"{config.hook_name or 'no activation'}, {config.d_in} → {config.d_out}: {names})"
        )

    def _repr_html_(self) -> str:
        config = self.config
        rows = [
            ("architecture", config.architecture),
            ("reads", config.hook_name or "its file names no activation"),
            ("writes", config.hook_name_out or config.hook_name or "its file names no activation"),
            ("features", f"{config.d_sae:,}"),
            ("width", f"{config.d_in} → {config.d_out}"),
            ("features with a name", f"{len(self.names):,}"),
        ]
        return boxed(table(rows), arrays(self.tensors), title=type(self).__name__)

    @property
    def hook_name(self) -> str:
        """The activation that it reads, by TransformerLens's name. ``ValueError`` if its file names none."""
        return named("hook_name", self.config.hook_name)

    @property
    def hook_name_out(self) -> str:
        """The activation that it predicts; for an autoencoder this is the one that it reads."""
        return named("hook_name_out", self.config.hook_name_out)

    @property
    def names(self) -> dict[int, str]:
        """The names that people gave to features, if the file has ``feature_names`` among its metadata."""
        found = self.config.metadata.get("feature_names")
        if not isinstance(found, dict):
            return {}
        return {int(one): str(name) for one, name in found.items() if str(one).isdecimal() and len(str(one)) < 10}

    @cached_property
    def norms(self) -> Array | None:
        """The lengths of the features' directions, (F,), where features are measured by them; else None."""
        return np.linalg.norm(self.tensors["W_dec"], axis=1) if self.config.rescale_acts_by_decoder_norm else None

    @cached_property
    def magnitudes(self) -> Array:
        """exp(r_mag) of a gated dictionary, (F,)."""
        return np.exp(self.tensors["r_mag"])

    # ---- encode and decode ------------------------------------------------------------------------------------------

    def encode(self, x: Array) -> Array:
        """The features of activations: (…, D) → (…, F), 0 where they don't fire. Heads may be apart, (…, H, D / H).

        float32, or float64 where the activations are. Equal to SAELens's ``encode`` but for rounding; of equal
        pre-activations at the border of top-k the first ones fire. Features are at least 0, but for "abstopk".
        ``ValueError`` for another width.
        """
        return self._encode(normalise(self.config.normalize_activations, self.flat(x))[0])

    def decode(self, features: Array, x: Array | None = None) -> Array:
        """Return the activations that features represent: (…, F) → (…, O).

        A dictionary that normalises its input needs that input, `x` (…, D), to invert the normalisation: ``ValueError``
        without it. A transcoder's skip connection isn't included, as in SAELens; `reconstruct` includes it.
        """
        if features.shape[-1] != self.config.d_sae:
            raise ValueError(f"features must be {self.config.d_sae} wide, got {features.shape}")
        y = self.written(features)
        if self.config.normalize_activations not in TAKEN_BACK or self.config.is_transcoder:
            return y
        if x is None:
            raise ValueError(
                f"this dictionary normalises its input ({self.config.normalize_activations}): "
                "give decode that input as well"
            )
        return normalise(self.config.normalize_activations, self.flat(x))[1].back(y)

    def reconstruct(self, x: Array) -> Array:
        """`decode` of `encode`, and the skip connection where there is one: (…, D) → (…, O), x's shape where that is
        as wide."""
        return self.both(x)[1]

    def both(self, x: Array) -> tuple[Array, Array]:
        """Return the features and the reconstruction of activations, (…, F) and as `reconstruct` returns it.

        This is called between the layers of a model, whose kernels have threads of their own: those of BLAS would spin
        for tens of milliseconds beside them, so the product is divided among threads that sleep when idle.
        """
        rows = self.flat(x)
        read, scale = normalise(self.config.normalize_activations, rows)
        features = self._encode(read, products.product)
        y = self.back(self.written(features), scale)
        if self.config.has_skip:
            y = y + rows @ self.tensors["W_skip"].T
        return features, y.reshape(x.shape) if self.config.d_out == self.config.d_in else y

    def gradient(self, x: Array, of_out: Array, features: Array | None = None, factor: Array | None = None) -> Array:
        """∂L/∂x from ∂L/∂(`reconstruct` of x): a vector-Jacobian product, of x's shape.

        `features` are those of x where they are known; `factor`, (F,), multiplies each feature's share, as an edit of
        features does. Which features fire counts as given; so do top-k's choice and JumpReLU's threshold.
        """
        rows, of_out = self.flat(x), of_out.reshape(*self.flat(x).shape[:-1], self.config.d_out)
        read, scale = normalise(self.config.normalize_activations, rows)
        fired = self._encode(read) if features is None else features
        given = of_out if self.config.is_transcoder else scale.gradient(of_out)
        of_features = self.of_features(given)
        if factor is not None:
            of_features = of_features * factor
        of_pre = np.where(fired != 0, of_features, 0).astype(rows.dtype, copy=False)
        if self.config.activation == "gated":
            of_pre *= self.magnitudes
        if self.norms is not None:
            of_pre *= self.norms
        of_read = of_pre @ self.tensors["W_enc"].T
        changed = fired if factor is None else fired * factor
        y = np.zeros_like(of_out) if self.config.is_transcoder else self.written(changed)
        through = np.zeros_like(of_out) if self.config.is_transcoder else of_out
        if self.config.normalize_activations in TAKEN_BACK:
            if self.config.is_transcoder:  # nothing is taken back of what another place is told
                y = through = np.zeros_like(rows)
            of_x = gradient(self.config.normalize_activations, rows, y, of_read, through)
        else:
            of_x = of_read
        if self.config.has_skip:
            of_x = of_x + of_out @ self.tensors["W_skip"]
        return of_x.reshape(x.shape).astype(x.dtype, copy=False)

    # ---- its parts --------------------------------------------------------------------------------------------------

    def flat(self, x: Array) -> Array:
        """Return activations as vectors, (…, D), with separate heads side by side. ``ValueError`` for other widths."""
        x = np.asarray(x)
        x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
        if x.shape[-1:] == (self.config.d_in,):
            return x
        if x.ndim > 2 and x.shape[-2] * x.shape[-1] == self.config.d_in:
            return x.reshape(*x.shape[:-2], self.config.d_in)
        raise ValueError(f"this dictionary reads vectors of {self.config.d_in}, got the shape {x.shape}")

    def _encode(self, read: Array, product: Callable[..., Any] = np.matmul) -> Array:
        """Features of what was normalised already."""
        t, rows = self.tensors, read.reshape(-1, self.config.d_in)
        if self.config.apply_b_dec_to_input:
            rows = rows - t["b_dec"]
        pre = empty((len(rows), self.config.d_sae), np.result_type(rows, t["W_enc"]))
        product(rows, t["W_enc"], out=pre)
        functions = implementation(pre, *(vector for vector in t.values() if vector.ndim == 1))
        in_pieces(lambda some: self._activate(pre[some], functions=functions), len(pre), pre.size)
        return pre.reshape(*read.shape[:-1], self.config.d_sae)

    def _activate(
        self,
        pre: Array,
        only: Sequence[int] | Array | slice = slice(None),
        functions: ModuleType = activation_functions,
    ) -> None:
        """Pre-activations without their biases made features, in place; `only` says which features they are of."""
        t, kind = self.tensors, self.config.activation
        if kind in ("topk", "abstopk"):
            assert self.config.k is not None
            functions.topk(pre, t["b_enc"], self.config.k, self.norms, signed=kind == "abstopk")
        elif kind == "gated":
            functions.gated(pre, t["b_gate"][only], self.magnitudes[only], t["b_mag"][only])
        elif kind == "jumprelu":
            functions.jumprelu(pre, t["b_enc"][only], t["threshold"][only])
        else:
            functions.relu(pre, t["b_enc"][only])

    def encode_some(self, x: Array, only: Sequence[int] | Array) -> Array:
        """Return only the features with these numbers, (…, len(only)): cheaper than all, except for top-k, where all
        compete.
        """
        rows = normalise(self.config.normalize_activations, self.flat(x))[0]
        if self.config.activation in ("topk", "abstopk"):
            return self._encode(rows)[..., only]
        if self.config.apply_b_dec_to_input:
            rows = rows - self.tensors["b_dec"]
        pre = rows @ self.tensors["W_enc"][:, only]
        self._activate(pre.reshape(-1, len(only)) if pre.size else pre, only)
        return pre

    def written(self, features: Array) -> Array:
        """Sum the features' directions and ``b_dec``, in the units that the dictionary reads: (…, F) → (…, O).

        Where few of many features fire, only their directions are read.
        """
        rows = features.reshape(-1, self.config.d_sae)
        if self.norms is not None:
            rows = rows / self.norms
        return (product(rows, self.tensors["W_dec"]) + self.tensors["b_dec"]).reshape(
            *features.shape[:-1], self.config.d_out
        )

    def back(self, y: Array, scale: Scale) -> Array:
        """Return the output in the model's units. A transcoder's output has none of its input's."""
        return y if self.config.is_transcoder else scale.back(y)

    def of_features(self, of_written: Array) -> Array:
        """Return ∂L/∂features, given ∂L/∂`written`: (…, O) → (…, F)."""
        found = of_written @ self.tensors["W_dec"].T
        return found if self.norms is None else found / self.norms

    def directions(self, only: Sequence[int] | Array | slice = slice(None)) -> Array:
        """Return what one unit of each feature adds to the output, (n, O), in the units that the dictionary reads."""
        rows = self.tensors["W_dec"][only]
        return rows if self.norms is None else rows / self.norms[only][:, None]

    def scale(self, x: Array) -> Scale:
        """Return the scale that is removed from these activations before encoding, and multiplied to the output."""
        return Scale() if self.config.is_transcoder else normalise(self.config.normalize_activations, self.flat(x))[1]


TAKEN_BACK = ("constant_norm_rescale", "layer_norm")


def named(what: str, name: str | None) -> str:
    """Return a hook's name. ``ValueError`` if there is none."""
    if name is None:
        raise ValueError(f"this dictionary's cfg.json has no {what}, so nothing says where in a model it belongs")
    return name
