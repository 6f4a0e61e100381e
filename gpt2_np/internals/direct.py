"""Direct logit attribution: the contribution of each component of one run to a logit, not counting later components.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". The last stream is a sum of what embeddings,
heads and MLPs wrote; the final norm, its scale taken from the run, and the unembedding are linear; so a logit is a sum
of one number a part. What a part does through others isn't in its number: it is what it says directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..display import boxed, described, heat, number
from ..session.model import Model

Array = np.ndarray
NAMES = ["embed", "pos_embed", "blocks.*.attn.z", "blocks.*.attn_out", "blocks.*.mlp_out", "*.resid_post", "ln_final.*"]


@dataclass(frozen=True, repr=False)
class Direct:
    """What each part added to ``logit``, which is the logit of a token (or its difference to another) at one position.

    ``heads`` (L, H), biases left out; ``mlps`` (L,), with theirs; ``attention_biases`` (L,); ``embed``, ``pos_embed``;
    ``norm_bias``, what the final norm's bias adds whatever was written. All of them together are ``logit``. ``scale``
    is what the final norm divided the stream by.
    """

    heads: Array
    mlps: Array
    attention_biases: Array
    embed: float
    pos_embed: float
    norm_bias: float
    logit: float
    scale: float

    @property
    def total(self) -> float:
        """The sum of all components, which is ``logit`` up to rounding."""
        parts = self.heads.sum() + self.mlps.sum() + self.attention_biases.sum()
        return float(parts) + self.embed + self.pos_embed + self.norm_bias

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        L, H = self.heads.shape
        layers, heads = [f"layer {layer}" for layer in range(L)], [str(head) for head in range(H)]
        numbers = [str(layer) for layer in range(L)]
        by_head = heat(self.heads, rows=layers, columns=heads, corner="head", legend="by each head")
        whole = np.stack([self.heads.sum(axis=1) + self.attention_biases, self.mlps])
        by_layer = heat(
            whole, rows=["attention", "MLP"], columns=numbers, corner="layer", legend="by each layer, biases included"
        )
        embed = number(self.embed + self.pos_embed)
        note = f"The rest: embeddings {embed}, the final norm's bias {number(self.norm_bias)}."
        return boxed(by_head, by_layer, title=f"What each part added to the logit {self.logit:.4g}", note=note)

    def layers(self) -> tuple[list[str], Array]:
        """Return what each layer's attention and MLP added, in the order of the run: names and numbers, embeddings
        first.
        """
        names, values = ["embed", "pos_embed"], [self.embed, self.pos_embed]
        for layer, (heads, bias, mlp) in enumerate(zip(self.heads, self.attention_biases, self.mlps, strict=True)):
            names += [f"{layer}_attn", f"{layer}_mlp"]
            values += [float(heads.sum() + bias), float(mlp)]
        return names, np.array(values)


def direct(
    model: Model, ids: Sequence[int] | Array, token: int, versus: int | None = None, *, position: int = -1
) -> Direct:
    """Return what every component added to the logit of `token` (less that of `versus`) at a position of one prompt,
    (T,).

    Worked out in float64 from the run's activations. ``ValueError`` for more than one row, for tokens that the
    vocabulary doesn't have, and for a position outside the prompt.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.internals.direct import direct
        >>> found = direct(model, model.to_ids("The king and the"), model.to_single_token(" queen"))
        >>> found.heads.shape, abs(found.total - found.logit) < 1e-3
        ((8, 10), True)
    """
    row = model.check_ids(ids)
    if len(row) != 1:
        raise ValueError(f"direct attribution looks at one prompt, got {len(row)} rows")
    T, L, H = row.shape[1], model.config.n_layer, model.config.n_head
    if not -T <= position < T:
        raise ValueError(f"position must be between {-T} and {T - 1}, got {position}")
    at = slice(position % T, position % T + 1)
    logits, cache = model.run_with_cache(row, NAMES)
    read = cache.directions(token).astype(np.float64)
    if versus is not None:
        read = read - cache.directions(versus)
    scale = cache["ln_final.scale"][0, at].astype(np.float64)
    gained = read * model.params.ln_f.weight
    reads = (gained - gained.mean()) / scale[0, 0]  # centring a part or what reads it is the same
    heads = np.stack([cache.head_result(layer)[0, at][0] for layer in range(L)]) @ reads
    biases = np.array([block.attn.c_proj.bias @ reads for block in model.params.h])
    mlps = np.array([cache["mlp_out", layer][0, at][0] @ reads for layer in range(L)])
    embed, pos_embed = (float(cache[name][0, at][0] @ reads) for name in ("embed", "pos_embed"))
    here = logits[0, at][0].astype(np.float64)
    logit = float(here[token] - (0 if versus is None else here[versus]))
    bias = float(read @ model.params.ln_f.bias)
    return Direct(heads.reshape(L, H), mlps, biases, embed, pos_embed, bias, logit, float(scale[0, 0]))
