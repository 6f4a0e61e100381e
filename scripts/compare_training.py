"""Train a small model from scratch here and in torch, with the same weights, data and schedule, and draw both loss
curves.

    python scripts/compare_training.py --text README.md --out runs/compare

writes ``losses.csv`` and ``losses.png`` into the folder and prints the largest difference between the two.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel, get_scheduler

from gpt2_np import GPT2
from gpt2_np.model.params import map_arrays
from gpt2_np.text.save import save_pretrained
from gpt2_np.training import Settings, clipping, data, initial, loss_and_gradients, norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, help="what to train on, as gpt2-np train takes it"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--n-layer", type=int, default=2)
    parser.add_argument("--n-embd", type=int, default=128)
    parser.add_argument("--n-head", type=int, default=4)
    options = parser.parse_args()
    shape = {name: getattr(options, name) for name in ("n_layer", "n_embd", "n_head")}
    settings = Settings(
        steps=options.steps,
        batch_size=options.batch_size,
        context=options.context,
        learning_rate=1e-3,
        warmup_steps=options.steps // 10,
        decayed="all",
        held_out=0.0,
    )
    bundled = GPT2.from_pretrained()
    config = replace(bundled.config, n_positions=options.context, **shape)
    model = GPT2(initial(config, settings.seed), config, folder=bundled.folder)
    corpus = data.encode(data.read(options.text), model)
    batches = [data.rows(corpus, step, settings.batch_size, settings.context, 0) for step in range(settings.steps)]
    curves = {"ours": ours(model, batches, settings), "torch": theirs(model, batches, settings)}
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "losses.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *curves])
        rows = zip(*curves.values(), strict=True)
        writer.writerows([step, f"{a:.6f}", f"{b:.6f}"] for step, (a, b) in enumerate(rows, 1))
    gaps = np.abs(np.subtract(curves["ours"], curves["torch"]))
    said = f"largest difference {gaps.max():.1e} nats, at step {gaps.argmax() + 1} of {len(gaps)}"
    draw(curves, said, options.out / "losses.png")
    print(f"loss {curves['ours'][0]:.4f} to {curves['ours'][-1]:.4f} (torch: {curves['torch'][-1]:.4f}); {said}")


def ours(model: GPT2, batches: list[np.ndarray], settings: Settings) -> list[float]:
    """The loss before each step, in NumPy."""
    params, state, losses, adamw = map_arrays(model.params, np.array), None, [], settings.adamw()
    for step, rows in enumerate(batches):
        loss, grads = loss_and_gradients(model.with_params(params), [(rows[:, :-1], rows[:, 1:])])
        scale = clipping(norm(grads), settings.max_grad_norm)
        params, state = adamw.step(params, grads, state, True, learning_rate=settings.rate(step), scale=scale)
        losses.append(loss)
    return losses


def theirs(model: GPT2, batches: list[np.ndarray], settings: Settings) -> list[float]:
    """The loss before each step, in torch, from the same weights; transformers' schedule."""
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(Path(folder), model.params, model.config)
        reference = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()
    optimizer = torch.optim.AdamW(
        reference.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, eps=settings.adam_epsilon
    )
    schedule = get_scheduler(settings.lr_scheduler_type, optimizer, settings.warmup_steps, settings.steps)
    losses = []
    for rows in batches:
        logits = reference(torch.tensor(rows[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(rows[:, 1:]).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def draw(curves: dict[str, list[float]], title: str, path: Path) -> None:
    """Both curves, torch's broad under ours."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(curves["torch"], color="#ffb59e", linewidth=4, label="torch")
    axes.plot(curves["ours"], color="#4269d0", linewidth=1, label="NumPy")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.title.set_fontsize(9)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
