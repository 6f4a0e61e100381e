"""The oracle of gradients: GPT-2 written out in torch with a tap at every name, differentiated by torch.autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble
from gpt2_np.session.model import Model

Tensor = torch.Tensor


def ours(reference: GPT2LMHeadModel) -> Model:
    """Our model of the same tensors, in their dtype, without a file between."""
    tensors = {name.removeprefix("transformer."): x.detach().numpy() for name, x in reference.state_dict().items()}
    config = Config.from_dict(reference.config.to_dict())
    tied = config.tie_word_embeddings
    return Model(assemble({k: v for k, v in tensors.items() if not (tied and k == "lm_head.weight")}, config), config)


def transformed(
    reference: GPT2LMHeadModel, ids: np.ndarray, tap: Callable[[str, Tensor], Tensor], types: np.ndarray | None = None
) -> Tensor:
    """The logits, (B, T, V), through a tap at every activation: the reference's own modules, its attention opened."""
    model, config = reference.transformer, reference.config
    B, T = ids.shape
    H, K = config.n_head, config.n_embd // config.n_head
    tokens = torch.tensor(ids)

    def norm(x: Tensor, module: Any, name: str) -> Tensor:
        x = tap(f"{name}.in", x)
        x = x - x.mean(-1, keepdim=True)
        scale = tap(f"{name}.scale", (x.pow(2).mean(-1, keepdim=True) + module.eps).sqrt())
        return tap(f"{name}.out", tap(f"{name}.normalized", x / scale) * module.weight + module.bias)

    x = tap("embed", model.wte(tokens)) + tap("pos_embed", model.wpe(torch.arange(T).expand(B, T)))
    if types is not None:
        x = x + model.wte(torch.tensor(types))
    for layer, block in enumerate(model.h):
        at = f"blocks.{layer}."
        x = tap(at + "resid_pre", x)
        q, k, v = block.attn.c_attn(norm(x, block.ln_1, at + "ln1")).view(B, T, 3, H, K).unbind(2)
        q, k, v = tap(at + "attn.q", q), tap(at + "attn.k", k), tap(at + "attn.v", v)
        scores = torch.einsum("bthk,bshk->bhts", q, k)
        if config.scale_attn_weights:
            scores = scores / K**0.5
        if config.scale_attn_by_inverse_layer_idx:
            scores = scores / (layer + 1)
        hidden = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        scores = tap(at + "attn.attn_scores", scores.masked_fill(hidden, -torch.inf))
        pattern = tap(at + "attn.pattern", scores.softmax(-1))
        z = tap(at + "attn.z", torch.einsum("bhts,bshk->bthk", pattern, v))
        output = block.attn.c_proj
        result = tap(at + "attn.result", torch.einsum("bthk,hkd->bthd", z, output.weight.view(H, K, -1)))
        x = tap(at + "resid_mid", x + tap(at + "attn_out", result.sum(2) + output.bias))
        pre = tap(at + "mlp.pre", block.mlp.c_fc(norm(x, block.ln_2, at + "ln2")))
        post = tap(at + "mlp.post", block.mlp.act(pre))
        x = tap(at + "resid_post", x + tap(at + "mlp_out", block.mlp.c_proj(post)))
    return tap("unembed", reference.lm_head(norm(x, model.ln_f, "ln_final")))


class Graph(dict):
    """A tap that makes every activation a node of the graph of its own, and keeps its gradient."""

    def __call__(self, name: str, x: Tensor) -> Tensor:
        self[name] = x.view_as(x) if x.requires_grad else x.requires_grad_()
        self[name].retain_grad()
        return self[name]

    def gradients(self) -> dict[str, np.ndarray]:
        """Every activation's gradient, after ``backward()``; 0 where nothing reached it."""
        return {name: (torch.zeros_like(x) if x.grad is None else x.grad).numpy() for name, x in self.items()}


def parameter_gradients(reference: GPT2LMHeadModel) -> dict[str, np.ndarray]:
    """Every parameter's gradient by its official name, after ``backward()``; 0 where nothing reached it."""
    return {
        name.removeprefix("transformer."): (torch.zeros_like(x) if x.grad is None else x.grad).numpy()
        for name, x in reference.named_parameters()
    }


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Every gradient within 1e-10 of its largest entry, and 1e-13 of the largest of all (some are truly 0)."""
    assert got.keys() == expected.keys()
    largest = max(np.abs(x).max() for x in expected.values())
    for name, x in expected.items():
        assert got[name].shape == x.shape, name
        assert np.abs(got[name] - x).max() <= 1e-10 * np.abs(x).max() + 1e-13 * largest, name
