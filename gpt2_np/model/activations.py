"""The captured activations of a run by name, and decompositions of the residual stream.

The methods have the names and the results of TransformerLens's ``ActivationCache``. TransformerLens expects parameters
with folded layer norms; this class applies the gains itself, so that sums are right for any parameters. With folded
parameters (`internals.processing.fold_ln`) both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .. import display
from . import ops
from .config import Config
from .forward import head_results
from .params import Norm, Params, as_array, unembedding
from .taps import BLOCK_POINTS, canonical, nearest

Array = np.ndarray
# One id, one a row (B,), or one a position (B, T); where the model has a tokenizer, texts of one token too.
Tokens = int | str | Array | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
Positions = int | slice | Sequence[int] | None
Labelled = tuple[Array, list[str]]


class NotCaptured(KeyError, ValueError):
    """Raised when the run didn't keep the requested activation."""

    def __str__(self) -> str:
        return str(self.args[0])


class ActivationCache(Mapping[str, Array]):
    """Captured activations by name: ``cache["blocks.0.attn.hook_pattern"]``, ``cache["pattern", 0]``.

    ``hook_`` is optional, and a layer may be counted from the end. Arrays are the run's own and read-only. A missing
    name raises `NotCaptured`, which suggests the nearest captured one. C counts the components that a method stacks.
    `token_of` maps a text of one token to its id.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> logits, cache = model.run_with_cache("The king and the")
        >>> parts, labels = cache.decompose_resid()
        >>> parts.shape, labels[:3]
        ((18, 1, 4, 320), ['embed', 'pos_embed', '0_attn_out'])
        >>> cache.logit_attrs(parts, " king").shape
        (18, 1, 4)
    """

    def __init__(
        self, values: Mapping[str, Array], params: Params, config: Config, token_of: Callable[[str], int] | None = None
    ) -> None:
        self.captured, self.params, self.config = dict(values), params, config
        self.token_of = token_of

    def __repr__(self) -> str:
        size = display.in_bytes(sum(one.nbytes for one in self.captured.values()))
        names = display.brief(list(self.captured)[:3]).strip("[]") + (", …" if len(self) > 3 else "")
        return f"ActivationCache({len(self)} activations, {size}: {names})"

    def _repr_html_(self) -> str:
        return display.boxed(display.arrays(self.captured), title=f"{len(self)} activations")

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"token_of": None}  # a model's tokenizer is not part of the captured data

    def __getitem__(self, name: str | tuple[str, int]) -> Array:
        known = self._full_name(*name) if isinstance(name, tuple) else canonical(name)
        if known not in self.captured:
            hint = f"; the nearest is {nearest(known, self.captured)!r}" if self.captured else ""
            raise NotCaptured(f"{known!r} was not captured{hint}")
        return self.captured[known]

    def __iter__(self) -> Iterator[str]:
        return iter(self.captured)

    def __len__(self) -> int:
        return len(self.captured)

    def _full_name(self, name: str, layer: int) -> str:
        L = self.config.n_layer
        if not -L <= layer < L:
            raise ValueError(f"layer must be between {-L} and {L - 1}, got {layer}")
        name = canonical(f"blocks.0.{name}").removeprefix("blocks.0.")
        points = [point for point in BLOCK_POINTS if point == name or point.endswith(f".{name}")]
        return f"blocks.{layer % L}.{points[0] if points else name}"

    # ---- the residual stream -----------------------------------------------------------------------------------------

    def accumulated_resid(
        self,
        layer: int | None = None,
        *,
        incl_mid: bool = False,
        apply_ln: bool = False,
        pos_slice: Positions = None,
        mlp_input: bool = False,
    ) -> Labelled:
        """The residual stream before each layer up to `layer` (None: to the end), stacked: (C, B, T, D), and labels.

        `incl_mid` adds the stream between attention and MLP; `mlp_input` that of the last layer only. With `apply_ln`
        each goes through the final layer norm, whole, as the logit lens wants (of a `layer` in between: through that
        layer's norm with the statistics of the run).
        """
        last = self._depth(layer)
        stack, labels = [], []
        for at in range(last + 1):
            if at == self.config.n_layer:
                stack.append(self["resid_post", at - 1])
                labels.append("final_post")
                continue
            stack.append(self["resid_pre", at])
            labels.append(f"{at}_pre")
            if (incl_mid and at < last) or (mlp_input and at == last):
                stack.append(self["resid_mid", at])
                labels.append(f"{at}_mid")
        result = self._stack(stack, pos_slice)
        if apply_ln:
            whole = last == self.config.n_layer
            result = self.apply_ln_to_stack(result, last, mlp_input=mlp_input, pos_slice=pos_slice, recompute_ln=whole)
        return result, labels

    def decompose_resid(
        self,
        layer: int | None = None,
        *,
        mlp_input: bool = False,
        mode: str = "all",
        apply_ln: bool = False,
        pos_slice: Positions = None,
        incl_embeds: bool = True,
    ) -> Labelled:
        """Return what each component wrote into the stream that `layer` reads (None: the end): (C, B, T, D), and
        labels.

        Embeddings, then each layer's attention and MLP (`mode` "attn" or "mlp": only these), biases included. With
        "all" and embeddings the sum is the residual stream.
        """
        if mode not in ("all", "attn", "mlp"):
            raise ValueError(f"mode must be 'all', 'attn' or 'mlp', got {mode!r}")
        last = self._depth(layer)
        parts: list[Array] = [self["embed"], self["pos_embed"]] if incl_embeds else []
        labels = ["embed", "pos_embed"] if incl_embeds else []
        for at in range(last + (mlp_input and mode != "mlp")):
            if mode != "mlp":
                parts.append(self["attn_out", at])
                labels.append(f"{at}_attn_out")
            if mode != "attn" and at < last:
                parts.append(self["mlp_out", at])
                labels.append(f"{at}_mlp_out")
        result = self._stack(parts, pos_slice)
        if apply_ln:
            result = self.apply_ln_to_stack(result, last, mlp_input=mlp_input, pos_slice=pos_slice)
        return result, labels

    def stack_head_results(
        self,
        layer: int | None = None,
        *,
        incl_remainder: bool = False,
        pos_slice: Positions = None,
        apply_ln: bool = False,
    ) -> Labelled:
        """Return what each head below `layer` wrote, without its share of the bias: (C, B, T, D), and labels "L0H3".

        `incl_remainder` adds everything that the heads didn't write, so that the sum is the residual stream.
        """
        last = self._depth(layer)
        H = self.config.n_head
        parts = [part for at in range(last) for part in np.moveaxis(self._at(self.head_result(at), pos_slice), -2, 0)]
        labels = [f"L{at}H{head}" for at in range(last) for head in range(H)]
        if incl_remainder:
            parts.append(self._remainder(parts, self._stream(last, False), pos_slice))
            labels.append("remainder")
        result = self._pile(parts, pos_slice)
        return (self.apply_ln_to_stack(result, last, pos_slice=pos_slice) if apply_ln else result), labels

    def head_result(self, layer: int) -> Array:
        """Return what each head of a layer wrote, (B, T, H, D): captured as ``attn.result``, or computed from
        ``attn.z``.
        """
        name = self._full_name("result", layer)
        if name in self.captured:
            return self.captured[name]
        return head_results(self["z", layer], self.params.h[layer].attn.c_proj)

    def stack_neuron_results(
        self,
        layer: int | None = None,
        *,
        neuron_slice: Positions = None,
        incl_remainder: bool = False,
        pos_slice: Positions = None,
        apply_ln: bool = False,
        project_output_onto: Array | None = None,
        mlp_input: bool = False,
    ) -> Labelled:
        """Return what each MLP neuron below `layer` wrote: (C, B, T, D), and labels "L0N17". This is large.

        `project_output_onto`, (D,) or (D, n), returns only the products with these directions, (C, B, T) or (C, B, T,
        n), without building the (C, B, T, D).
        """
        last, P = self._depth(layer), project_output_onto
        numbers = np.atleast_1d(np.arange(self.config.mlp_width)[slice(None) if neuron_slice is None else neuron_slice])
        labels = [f"L{at}N{number}" for at in range(last) for number in numbers]
        parts: list[Array] = []
        for at in range(last):
            post = np.moveaxis(self._at(self["post", at], pos_slice)[..., numbers], -1, 0)
            writes = as_array(self.params.h[at].mlp.c_proj.weight)[numbers]
            if apply_ln and P is not None:  # the norm is linear once its scale is frozen: apply it to the weights
                norm, scale = self._norm(last, mlp_input, pos_slice)
                writes, post = (writes - writes.mean(-1, keepdims=True)) * norm.weight, post / scale[..., 0]
            directions = writes if P is None else writes @ P
            parts += [np.multiply.outer(x, direction) for x, direction in zip(post, directions, strict=True)]
        if incl_remainder:
            rest = self._stream(last, mlp_input)
            if apply_ln and P is not None:
                whole = self.apply_ln_to_stack(
                    self._stack([rest], pos_slice), last, mlp_input=mlp_input, pos_slice=pos_slice
                )[0]
                parts.append(self._remainder(parts, whole @ P, None))
            else:
                parts.append(self._remainder(parts, rest if P is None else rest @ P, pos_slice))
            labels.append("remainder")
        result = self._pile(parts, pos_slice)
        if apply_ln and P is None:
            result = self.apply_ln_to_stack(result, last, mlp_input=mlp_input, pos_slice=pos_slice)
        return result, labels

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        *,
        expand_neurons: bool = True,
        apply_ln: bool = False,
        pos_slice: Positions = None,
    ) -> Labelled:
        """Heads, neurons (or MLPs), embeddings, biases: (C, B, T, D), and labels; the sum is the stream."""
        last = self._depth(layer)
        heads, labels = self.stack_head_results(last, pos_slice=pos_slice)
        if expand_neurons:
            rest, more = self.stack_neuron_results(last, pos_slice=pos_slice)
        else:
            rest, more = self.decompose_resid(last, mode="mlp", incl_embeds=False, pos_slice=pos_slice)
        blocks = self.params.h[:last]
        bias = sum((block.attn.c_proj.bias for block in blocks), np.zeros(self.config.n_embd, heads.dtype))
        if expand_neurons:
            bias = sum((block.mlp.c_proj.bias for block in blocks), bias)
        embeds = self._stack([self["embed"], self["pos_embed"]], pos_slice)
        result = np.concatenate([heads, rest, embeds, np.broadcast_to(bias, embeds[:1].shape)])
        if apply_ln:
            result = self.apply_ln_to_stack(result, last, pos_slice=pos_slice)
        return result, [*labels, *more, "embed", "pos_embed", "bias"]

    def stack_activation(self, name: str, layers: int | None = None) -> Array:
        """One activation of every layer (or the first `layers`), stacked: (L, …)."""
        return np.stack([self[name, layer] for layer in range(self._depth(layers))])

    # ---- from the stream to logits -----------------------------------------------------------------------------------

    def apply_ln_to_stack(
        self,
        stack: Array,
        layer: int | None = None,
        *,
        mlp_input: bool = False,
        pos_slice: Positions = None,
        recompute_ln: bool = False,
    ) -> Array:
        """Apply the layer norm that reads the stream at `layer` (None: the final one) to a stack, with its scale
        frozen.

        Each component is centred, divided by the scale *of the run* and multiplied by the gain. This is linear, so the
        components still add up to the norm's output without its bias. With `recompute_ln` the norm is applied to each
        component by itself instead.
        """
        last = self._depth(layer)
        norm, scale = self._norm(last, mlp_input, pos_slice)
        if recompute_ln:
            return ops.layer_norm(stack, *norm, self.config.layer_norm_epsilon)
        return (stack - stack.mean(-1, keepdims=True)) / scale * norm.weight

    def logit_attrs(
        self, stack: Array, tokens: Tokens, incorrect_tokens: Tokens | None = None, *, pos_slice: Positions = None
    ) -> Array:
        """Direct logit attribution: what each component adds to the logit of a token. (C, B, T, D) → (C, B, T).

        `tokens` is one id, one for each row (B,), or one for each position (B, T); with `incorrect_tokens` it is
        the difference to theirs. Summed over a whole decomposition it is the logit, less `logit_bias`. Elhage et al.
        2021, "A Mathematical Framework for Transformer Circuits".
        """
        tokens = self.token_ids(tokens)
        direction = self.directions(tokens)
        if incorrect_tokens is not None:
            incorrect_tokens = self.token_ids(incorrect_tokens)
            if np.shape(tokens) != np.shape(incorrect_tokens):
                raise ValueError(
                    "tokens and incorrect_tokens must have the same shape, "
                    f"got {np.shape(tokens)} and {np.shape(incorrect_tokens)}"
                )
            direction = direction - self.directions(incorrect_tokens)
        scaled = self.apply_ln_to_stack(stack, pos_slice=pos_slice)
        if direction.ndim == 2 and scaled.ndim == 4:
            direction = direction[:, None]
        return (scaled * direction).sum(-1)

    def directions(self, tokens: Tokens) -> Array:
        """The directions in which tokens are read off the normed stream: their rows of ``lm_head``, (…, D)."""
        ids = self.token_ids(tokens)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.config.vocab_size:
            raise ValueError(f"tokens must be between 0 and {self.config.vocab_size - 1}, got {ids.tolist()}")
        return unembedding(self.params)[ids]

    def token_ids(self, tokens: Tokens) -> Array:
        """Return tokens as ids. ``ValueError`` for a text that isn't one token, and for anything but integers."""
        ids = np.asarray(tokens)
        if ids.dtype.kind == "U":
            if self.token_of is None:
                raise ValueError(f"a text needs a model with a tokenizer; give ids, got {tokens!r:.60}")
            ids = np.array([self.token_of(text) for text in ids.ravel().tolist()]).reshape(ids.shape)
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"tokens must be ids or texts of one token, got {tokens!r:.60}")
        return ids

    def logit_bias(self, tokens: Tokens) -> Array:
        """Return the part of tokens' logits that no component wrote: the contribution of the final norm's bias."""
        return self.directions(tokens) @ self.params.ln_f.bias

    # ---- pieces ------------------------------------------------------------------------------------------------------

    def _depth(self, layer: int | None) -> int:
        L = self.config.n_layer
        if layer is None or layer == -1:
            return L
        if not 0 <= layer <= L:
            raise ValueError(f"layer must be between 0 and {L}, or -1 for the end, got {layer}")
        return layer

    def _at(self, x: Array, pos_slice: Positions) -> Array:
        return x if pos_slice is None else x[:, pos_slice]

    def _stack(self, parts: Sequence[Array], pos_slice: Positions) -> Array:
        return self._pile([self._at(part, pos_slice) for part in parts], pos_slice)

    def _pile(self, parts: Sequence[Array], pos_slice: Positions) -> Array:
        if not parts:  # below layer 0 nothing has written yet
            return np.zeros((0, *self._at(self["resid_pre", 0], pos_slice).shape), self.params.ln_f.weight.dtype)
        return np.stack(parts)

    def _stream(self, depth: int, mlp_input: bool) -> Array:
        if mlp_input:
            return self["resid_mid", depth]
        return self["resid_post", depth - 1] if depth else self["resid_pre", 0]

    def _remainder(self, parts: Sequence[Array], whole: Array, pos_slice: Positions) -> Array:
        rest = self._at(whole, pos_slice).copy()
        for part in parts:
            rest -= part
        return rest

    def _norm(self, depth: int, mlp_input: bool, pos_slice: Positions) -> tuple[Norm, Array]:
        if depth == self.config.n_layer:
            return self.params.ln_f, self._at(self["ln_final.scale"], pos_slice)
        block, name = self.params.h[depth], "ln2.scale" if mlp_input else "ln1.scale"
        return (block.ln_2 if mlp_input else block.ln_1), self._at(self[name, depth], pos_slice)
