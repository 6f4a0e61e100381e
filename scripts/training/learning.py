"""How it learns: the model, Muon and AdamW, the schedule, checkpoints that resume exactly."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel


def build(shape: dict[str, int], seed: int, dropout: float, device: str) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 (Radford et al. 2019, section 2.3), all in float32."""
    torch.manual_seed(seed)
    # The same function as gelu_new, in one pass over memory instead of eight.
    config = GPT2Config(**shape, activation_function="gelu_pytorch_tanh", bos_token_id=0, eos_token_id=0,
                        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)  # fmt: skip
    return GPT2LMHeadModel(config).to(device).train()


def loss_of(model: GPT2LMHeadModel, rows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of each next id of (rows, length + 1) ids, the matrices multiplied in bfloat16."""
    with torch.autocast(rows.device.type, torch.bfloat16):
        hidden = model.transformer(rows[:, :-1]).last_hidden_state
        logits = model.lm_head(hidden)
    return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction=reduction)


def schedule(done: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """The share of the peak learning rate when `done` (0 … 1) of the run lies behind: linear up, cosine down."""
    if done < warmup:
        return done / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


class Phase(NamedTuple):
    """From a step on: the tokens at which the learning rate comes to its end, and the shares of tales and repeats."""

    step: int
    tokens: int
    tales: float
    repeats: float


def read_phases(path: Path) -> list[Phase]:
    """The phases in a CSV file with the columns step, tokens, tales and repeats, the first from step 0 on."""
    with path.open(newline="") as file:
        phases = [Phase(int(row["step"]), int(row["tokens"]), float(row["tales"]), float(row["repeats"]))
                  for row in csv.DictReader(file)]  # fmt: skip
    if not phases or phases[0].step or [one.step for one in phases] != sorted({one.step for one in phases}):
        raise ValueError(f"{path} must have rows for rising steps, the first for step 0")
    return phases


def orthogonalise(gradient: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with all singular values near 1, by five Newton-Schulz steps (Jordan et al. 2024, Muon)."""
    x = gradient.bfloat16()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if tall else x).float()


class Optimizer:
    """Muon for the blocks' matrices, AdamW for embeddings, norms and biases; weight decay on matrices alone."""

    def __init__(self, model: nn.Module, rates: dict[str, float]) -> None:
        self.rates = rates
        named = dict(model.named_parameters())
        self.matrices = {n: p for n, p in named.items() if p.ndim == 2 and ".h." in n}
        self.others = {n: p for n, p in named.items() if n not in self.matrices}
        self.state = {f"{n}.momentum": torch.zeros_like(p) for n, p in self.matrices.items()}
        for n, p in self.others.items():
            self.state |= {f"{n}.mean": torch.zeros_like(p), f"{n}.square": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, number: int, scale: float) -> None:
        """One update; `number` counts from 1, `scale` is the schedule's share of the peak rates."""
        for name, parameter in self.matrices.items():
            momentum = self.state[f"{name}.momentum"]
            momentum.lerp_(parameter.grad, 0.05)
            update = parameter.grad.lerp(momentum, 0.95)
            # Queries, keys and values are three matrices that share a tensor.
            parts = update.chunk(3, dim=1) if "c_attn" in name else (update,)
            stretch = max(1, parts[0].shape[1] / parts[0].shape[0]) ** 0.5
            update = torch.cat([orthogonalise(part) * stretch for part in parts], dim=1)
            rate = scale * self.rates["muon"]
            parameter.mul_(1 - rate * self.rates["decay"]).add_(update, alpha=-rate)
        for name, parameter in self.others.items():
            mean, square = self.state[f"{name}.mean"], self.state[f"{name}.square"]
            mean.lerp_(parameter.grad, 0.1)
            square.lerp_(parameter.grad.square(), 0.02)
            unbiased = (mean / (1 - 0.9**number)) / ((square / (1 - 0.98**number)).sqrt() + 1e-8)
            parameter.add_(unbiased, alpha=-scale * self.rates["adam"])


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
    """What `save_checkpoint` wrote, put back into `model` and `optimizer`; returns the progress."""
    progress = json.loads((folder / "progress.json").read_text())
    tensors = load_file(folder / progress["checkpoint"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
        for name, moment in optimizer.state.items():
            moment.copy_(tensors[f"state.{name}"])
    return progress
