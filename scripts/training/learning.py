"""The training itself: the model and its loss, Muon and AdamW, the schedule, checkpoints that resume exactly."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2_np.training.schedule import cosine_with_min_lr


def build(shape: dict[str, Any], seed: int, dropout: float, device: str) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 (Radford et al. 2019, section 2.3), all in float32."""
    torch.manual_seed(seed)
    # The same function as gelu_new, in one pass over memory instead of eight. Attention itself drops nothing.
    config = GPT2Config(
        **shape,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,
    )
    model = GPT2LMHeadModel(config)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers hides torch's own signature
    return model.train()


def loss_of(model: GPT2LMHeadModel, rows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of each next id of (rows, length + 1) ids, the matrices multiplied in bfloat16.

    The model's own forward pass, written out so that it compiles: on a CUDA device one block is compiled once, for all
    layers. What is not trained on is not worth the compiler's time.
    """
    device, config = rows.device.type, model.config
    made = functools.partial(compiled, compile_it=model.training and device == "cuda")
    dropout = config.resid_pdrop if model.training else 0.0
    transformer = model.transformer
    with torch.autocast(device, torch.bfloat16):
        x = made(embed)(rows[:, :-1], transformer.wte.weight, transformer.wpe.weight, dropout)
        for layer in transformer.h:
            x = made(block)(x, config.n_head, dropout, *layer.parameters())
        return made(head)(x, rows[:, 1:], *transformer.ln_f.parameters(), transformer.wte.weight, reduction)


@functools.cache
def compiled(function: Callable[..., torch.Tensor], compile_it: bool) -> Callable[..., torch.Tensor]:
    """A function as the compiler would have it, made once; or as it is."""
    return torch.compile(function, dynamic=False) if compile_it else function


def embed(ids: torch.Tensor, tokens: torch.Tensor, positions: torch.Tensor, dropout: float) -> torch.Tensor:
    """(rows, length) ids → (rows, length, width)."""
    return F.dropout(F.embedding(ids, tokens) + positions[: ids.shape[1]], dropout, dropout > 0)


def block(
    x: torch.Tensor,
    heads: int,
    dropout: float,
    norm1: torch.Tensor,
    bias1: torch.Tensor,
    qkv: torch.Tensor,
    qkv_bias: torch.Tensor,
    out: torch.Tensor,
    out_bias: torch.Tensor,
    norm2: torch.Tensor,
    bias2: torch.Tensor,
    up: torch.Tensor,
    up_bias: torch.Tensor,
    down: torch.Tensor,
    down_bias: torch.Tensor,
) -> torch.Tensor:
    """One block, its weights in the checkpoint's order: (rows, length, width) → the same."""
    rows, length, width = x.shape
    normed = F.layer_norm(x, (width,), norm1, bias1)
    parts = F.linear(normed, qkv.T, qkv_bias).view(rows, length, 3, heads, width // heads)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(rows, length, width)
    x = x + F.dropout(F.linear(mixed, out.T, out_bias), dropout, dropout > 0)
    normed = F.layer_norm(x, (width,), norm2, bias2)
    hidden = F.gelu(F.linear(normed, up.T, up_bias), approximate="tanh")
    return x + F.dropout(F.linear(hidden, down.T, down_bias), dropout, dropout > 0)


def head(
    x: torch.Tensor, targets: torch.Tensor, norm: torch.Tensor, bias: torch.Tensor, tokens: torch.Tensor, reduction: str
) -> torch.Tensor:
    """The loss of (rows, length, width) against (rows, length) next ids."""
    logits = F.linear(F.layer_norm(x, norm.shape, norm, bias), tokens)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction=reduction)


def schedule(done: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """The share of the peak learning rate when `done` (0 … 1) of the run lies behind: linear up, cosine down."""
    return cosine_with_min_lr(min(1.0, done), warmup, 1.0, floor)


class Phase(NamedTuple):
    """From a step on: the tokens at which the learning rate comes to its end, and the shares of tales and repeats."""

    step: int
    tokens: int
    tales: float
    repeats: float


def read_phases(path: Path) -> list[Phase]:
    """The phases in a CSV file with the columns step, tokens, tales and repeats, the first from step 0 on."""
    with path.open(newline="") as file:
        phases = [
            Phase(int(row["step"]), int(row["tokens"]), float(row["tales"]), float(row["repeats"]))
            for row in csv.DictReader(file)
        ]
    if not phases or phases[0].step or [one.step for one in phases] != sorted({one.step for one in phases}):
        raise ValueError(f"{path} must have rows for rising steps, the first for step 0")
    return phases


def phase_at(phases: list[Phase], step: int) -> Phase:
    """The phase that holds at a step."""
    return next(one for one in reversed(phases) if one.step <= step)


def orthogonalise(gradients: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with all singular values near 1, by five Newton-Schulz steps (Jordan et al. 2024, Muon).

    (…, rows, columns) → the same.
    """
    x = gradients.bfloat16()
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


def gradients_of(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """Their gradients, which all of them have."""
    return [one.grad for one in parameters if one.grad is not None]


class Optimizer:
    """Muon for the blocks' matrices, AdamW for embeddings, norms and biases; weight decay on matrices alone."""

    def __init__(self, model: nn.Module, rates: dict[str, float]) -> None:
        self.rates = rates
        named = dict(model.named_parameters())
        self.matrices: dict[str, torch.Tensor] = {n: p for n, p in named.items() if p.ndim == 2 and ".h." in n}
        self.others: dict[str, torch.Tensor] = {n: p for n, p in named.items() if n not in self.matrices}
        self.state = {f"{n}.momentum": torch.zeros_like(p) for n, p in self.matrices.items()}
        for n, p in self.others.items():
            self.state |= {f"{n}.mean": torch.zeros_like(p), f"{n}.square": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, number: int, scale: float) -> None:
        """One update; `number` counts from 1, `scale` is the schedule's share of the peak rates."""
        matrices, rate = list(self.matrices.values()), scale * self.rates["muon"]
        gradients, momenta = gradients_of(matrices), [self.state[f"{n}.momentum"] for n in self.matrices]
        torch._foreach_lerp_(momenta, gradients, 0.05)
        updates = self.muon(list(torch._foreach_lerp(gradients, momenta, 0.95)))
        torch._foreach_mul_(matrices, 1 - rate * self.rates["decay"])
        torch._foreach_add_(matrices, updates, alpha=-rate)

        others = list(self.others.values())
        gradients = gradients_of(others)
        means, squares = ([self.state[f"{n}.{kind}"] for n in self.others] for kind in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 0.1)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 0.02)
        roots = torch._foreach_sqrt(torch._foreach_div(squares, 1 - 0.98**number))
        torch._foreach_add_(roots, 1e-8)
        unbiased = torch._foreach_div(torch._foreach_div(means, 1 - 0.9**number), roots)
        torch._foreach_add_(others, unbiased, alpha=-scale * self.rates["adam"])

    def muon(self, updates: list[torch.Tensor]) -> list[torch.Tensor]:
        """Each matrix's update made orthogonal, all matrices of a shape at once."""
        # Queries, keys and values are three matrices that share a tensor.
        named = zip(self.matrices, updates, strict=True)
        parts = [one.chunk(3, dim=1) if "c_attn" in name else (one,) for name, one in named]
        of_shape: dict[torch.Size, list[torch.Tensor]] = {}
        for part in sum(parts, ()):
            of_shape.setdefault(part.shape, []).append(part)
        made = {
            shape: iter(orthogonalise(torch.stack(same)) * max(1, shape[1] / shape[0]) ** 0.5)
            for shape, same in of_shape.items()
        }
        return [torch.cat([next(made[part.shape]) for part in row], dim=1) for row in parts]


def save_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Parameters, moments and progress. The JSON is replaced last and names the tensors' file: a kill is harmless."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"checkpoint-{progress['step']}.safetensors"
    tensors = {f"model.{n}": p.detach().clone() for n, p in model.named_parameters()}
    save_file(tensors | {f"state.{n}": t for n, t in optimizer.state.items()}, folder / f"{name}.part")
    (folder / f"{name}.part").replace(folder / name)
    (folder / "progress.part").write_text(json.dumps(progress | {"checkpoint": name}))
    (folder / "progress.part").replace(folder / "progress.json")
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote into `model` and `optimizer`, and return the progress."""
    progress: dict[str, Any] = json.loads((folder / "progress.json").read_text())
    tensors = load_file(folder / progress["checkpoint"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        for name, moment in optimizer.state.items():
            moment.copy_(tensors[f"state.{name}"])
    return progress
