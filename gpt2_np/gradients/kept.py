"""The activations that a forward pass keeps for the backward pass, and how much memory they take.

    keep      kept of each block                                 computed again, block by block
    "all"     what its derivatives read                          norms' results and activations, if nothing is edited
    "layers"  its input, and the results of its affine maps      norms, scores, patterns, activations
    "inputs"  its input                                          the whole block

"inputs" is gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"), "layers" the
selective kind (Korthikanti et al. 2022, section 5). Recomputation uses the same operations, so the gradients have the
same bits.

Measured, the most that a process holds beyond the weights, at the 124M shape in float32 with the loss of all positions:
all parameters' gradients of 8 × 256 tokens take 2.0, 1.7 and 1.2 GB (0.5 of them the gradients, 0.4 the logits, 0.4 the
logits' gradient). For 4 × 64 tokens it is 0.7 GB in each way: there the parameters' gradients are most of it. All names
of 1 × 512 tokens take 1.7 GB in each, since what is captured is kept anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from ..display import Readable
from ..model import params as P
from ..model.arrays import Array, Weight
from ..model.config import Config
from ..model.forward import block
from ..model.operations import Operations, with_linear
from ..model.taps import Tap, both, no_tap, with_prefix
from .edited import Edited

KEEP = ("all", "layers", "inputs")

# What the derivatives of a block read, and what those of its parameters read in addition.
NEEDED = (
    "ln1.normalized",
    "ln1.scale",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.pattern",
    "ln2.normalized",
    "ln2.scale",
    "mlp.pre",
)
NEEDED_BY_PARAMETERS = ("ln1.out", "attn.z", "ln2.out", "mlp.post")
POINTWISE = ("ln1.out", "ln2.out", "mlp.post")  # made from the others position by position, a third of their memory


class Kept(Readable):
    """The tap of a forward pass whose gradients are wanted. Afterwards it provides what `backward` asks for, once.

    The pass must be given ``kept.tap`` and ``kept.ops``; the edits of `edited` are applied inside. ``ValueError`` for
    an unknown `keep`.
    """

    def __init__(
        self,
        params: P.Params,
        config: Config,
        ops: Operations,
        *,
        edited: Edited | None = None,
        keep: str = "all",
        parameters: bool = False,
    ) -> None:
        if keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {keep!r}")
        self.params, self.config, self.edited = params, config, edited
        self.needed = NEEDED + (NEEDED_BY_PARAMETERS if parameters else ())
        self.last = self.needed[-1]
        final = ["ln_final.normalized", "ln_final.scale", *(["ln_final.out"] if parameters else [])]
        blocks = [f"blocks.{layer}." for layer in range(config.n_layer)]
        self.inputs = [prefix + "resid_pre" for prefix in blocks]
        self.again = keep != "all"
        made = () if self.again or edited is not None else POINTWISE  # an edit may change them
        self.of_block = [name for name in self.needed if name not in made]
        of_blocks = self.inputs if self.again else [prefix + name for prefix in blocks for name in self.of_block]
        self.names = frozenset([*final, *of_blocks])
        self.plain, self.products = ops, Products(ops) if keep == "layers" else None
        self.left: dict[str, Array] = {}

    @property
    def ops(self) -> Operations:
        """The operations of the forward pass, which record their results where these are kept."""
        return self.plain if self.products is None else with_linear(self.plain, self.products.linear)

    @property
    def tap(self) -> Tap:
        """The tap of the forward pass: the edits first, then the recording."""
        return both(no_tap if self.edited is None else self.edited, self)

    def wants(self, name: str) -> bool:
        return name in self.names

    def __call__(self, name: str, x: Array) -> Array:
        if name in self.names:
            self.left[name] = x
            if self.products is not None and name in self.inputs:
                self.products.next_block()
        return x

    def values(self) -> Values:
        """The values of the final norm."""
        return Values(self.left, self.edited)

    def block(self, layer: int) -> Values:
        """Return a block's values, recomputed if they weren't kept. They can be taken once."""
        prefix = f"blocks.{layer}."
        if self.again:
            self._again(layer, prefix)
        left = {prefix + name: self.left.pop(prefix + name) for name in self.of_block}
        return Values(left, self.edited, prefix, pointwise(left, prefix, self.params.h[layer], self.config, self.plain))

    def _again(self, layer: int, prefix: str) -> None:
        """Run a block's forward pass again, as far as its values are needed."""
        x = self.left.pop(self.inputs[layer])
        made = None if self.edited is None else self.edited.made(self.inputs[layer])
        until = Until(frozenset(prefix + name for name in self.needed), prefix + self.last, self.left)
        ops = self.plain if self.products is None else self.products.again(layer)
        tap = with_prefix(both(no_tap if self.edited is None else self.edited, until), prefix)
        with contextlib.suppress(Enough):
            block(x if made is None else made, self.params.h[layer], self.config, layer, ops, None, tap)


def pointwise(
    left: Mapping[str, Array], prefix: str, p: P.Block, config: Config, ops: Operations
) -> dict[str, Callable[[], Array]]:
    """Return what computes the values of `POINTWISE` from those that are left of a block, as `forward` does."""
    return {
        prefix + "ln1.out": lambda: ops.scaled_and_shifted(left[prefix + "ln1.normalized"], *p.ln_1),
        prefix + "ln2.out": lambda: ops.scaled_and_shifted(left[prefix + "ln2.normalized"], *p.ln_2),
        prefix + "mlp.post": lambda: ops.activate(left[prefix + "mlp.pre"], config.activation_function, p.mlp.act),
    }


class Enough(Exception):
    """Raised when a recomputed block has produced everything that is needed of it."""


class Until(Readable):
    """A tap that keeps the `names` in `left` and ends the pass after the `last` of them."""

    def __init__(self, names: frozenset[str], last: str, left: dict[str, Array]) -> None:
        self.names, self.last, self.left = names, last, left

    def wants(self, name: str) -> bool:
        return name in self.names

    def __call__(self, name: str, x: Array) -> Array:
        if name in self.names:
            self.left[name] = x
        if name == self.last:
            raise Enough
        return x


class Products(Readable):
    """Operations that record the results of affine maps, block by block, except each block's last one, which nothing
    reads.
    """

    def __init__(self, ops: Operations) -> None:
        self.ops = ops
        self.blocks: list[list[Array]] = []

    def next_block(self) -> None:
        """Start recording the next block."""
        if self.blocks:
            self.blocks[-1].pop()
        self.blocks.append([])

    def linear(self, x: Array, weight: Weight, bias: Array) -> Array:
        """Compute ``ops.linear`` and record the result."""
        y = self.ops.linear(x, weight, bias)
        self.blocks[-1].append(y)
        return y

    def again(self, layer: int) -> Operations:
        """Return the operations for a block's second pass, which take recorded results instead of computing affine
        maps.
        """
        results, self.blocks[layer] = iter(self.blocks[layer]), []
        return with_linear(self.ops, lambda x, weight, bias: next(results))


class Values(Readable):
    """The values of one part of the model by their local names: ``values["attn.q"]`` is what left that tap.

    `computed` holds functions that compute those that weren't kept, each time that one is read.
    """

    def __init__(
        self,
        left: Mapping[str, Array],
        edited: Edited | None,
        prefix: str = "",
        computed: Mapping[str, Callable[[], Array]] | None = None,
    ) -> None:
        self.left, self.edited, self.prefix, self.computed = left, edited, prefix, computed or {}

    def with_prefix(self, prefix: str) -> Values:
        """Return the same values for a part of this part, whose names get this prefix."""
        return Values(self.left, self.edited, self.prefix + prefix, self.computed)

    def __getitem__(self, name: str) -> Array:
        name = self.prefix + name
        return self.left[name] if name in self.left else self.computed[name]()

    def made(self, name: str) -> Array:
        """Return what the operation before the tap computed, before any edit: its derivative reads this."""
        made = None if self.edited is None else self.edited.made(self.prefix + name)
        return self[name] if made is None else made
