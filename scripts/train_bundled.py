"""Train the bundled model: GPT-2's architecture, its own byte-level BPE, on a folder of tales and novels.

    python scripts/train_bundled.py --text TEXT --out runs/tales --schedule scripts/training/tales.csv

continues from its checkpoint if there is one, so it may be stopped at any time. In the end ``runs/tales/`` holds the
loss curve, samples from the course of the training, and the checkpoint. ``scripts/export_bundled.py`` exports it as a
model's folder. On one device, the same seed gives the same weights. ``--device cuda`` compiles the loss; only the lines
of the loss curve wait for the device.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tokenizers
import torch
from training import data, learning
from transformers import GPT2LMHeadModel

SIZES = {
    "tales": {"vocab_size": 4096, "n_positions": 512, "n_embd": 320, "n_layer": 8, "n_head": 10},
    "tiny": {"vocab_size": 4096, "n_positions": 128, "n_embd": 64, "n_layer": 2, "n_head": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with tales.txt.xz and novels.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an earlier run there goes on")
    parser.add_argument("--size", choices=SIZES, default="tales")
    parser.add_argument("--tokens", type=int, default=800_000_000, help="length of the run; the schedule ends there")
    parser.add_argument("--rows", type=int, default=128, help="rows of a batch, each of the whole context")
    parser.add_argument("--muon", type=float, default=0.02, help="peak learning rate of the blocks' matrices")
    parser.add_argument("--adam", type=float, default=0.004, help="peak learning rate of everything else")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay of the matrices")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--tales", type=float, default=0.2, help="share of rows from the tales")
    parser.add_argument("--repeats", type=float, default=0.03, help="share of rows in which a passage repeats")
    parser.add_argument(
        "--schedule",
        type=Path,
        metavar="CSV",
        help="from which step on --tokens, --tales and --repeats are what, in place of the three",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--every", type=int, default=50, help="steps between lines of the loss curve")
    parser.add_argument(
        "--check",
        type=int,
        default=1000,
        help="steps between looks at the held-out text, with a sample and a checkpoint",
    )
    parser.add_argument("--stop-after", type=int, help="stop at this step, as if killed (for tests)")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """The whole run, or what is left of it."""
    if options.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what makes cuBLAS deterministic
        torch.use_deterministic_algorithms(True)
    shape = SIZES[options.size]
    corpora = data.prepare(options.text, options.out, shape["vocab_size"])
    for name, corpus in corpora.items():
        print(f"{name}: {len(corpus.ids):,} ids, {corpus.bytes / len(corpus.ids):.3f} bytes each", flush=True)
    model = learning.build(shape, options.seed, options.dropout, options.device)
    optimizer = learning.Optimizer(model, {"muon": options.muon, "adam": options.adam, "decay": options.decay})
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0}
    if (options.out / "progress.json").is_file():
        progress = learning.load_checkpoint(options.out, model, optimizer)
    settings = {key: str(value) for key, value in vars(options).items()} | {"shape": shape, "on": machine(options)}
    (options.out / f"settings-{progress['step']}.json").write_text(json.dumps(settings, indent=1))

    phases = [learning.Phase(0, options.tokens, options.tales, options.repeats)]
    if options.schedule is not None:
        phases = learning.read_phases(options.schedule)
    per_step = options.rows * shape["n_positions"]
    steps = -(-phases[-1].tokens // per_step)
    last = min(steps, options.stop_after or steps)
    total, count, since = torch.zeros((), device=options.device), 0, time.monotonic()
    for step, rows in batches(corpora, phases, range(progress["step"], last), options, shape):
        phase = learning.phase_at(phases, step)
        torch.manual_seed(options.seed + step)  # for dropout: nothing depends on where the run was interrupted
        loss = learning.loss_of(model, rows.to(options.device, non_blocking=True))
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(step + 1, learning.schedule(step / -(-phase.tokens // per_step)))
        total, count = total + loss.detach(), count + 1
        progress |= {"step": step + 1, "tokens": (step + 1) * per_step}
        check = progress["step"] % options.check == 0 or progress["step"] == steps
        if check or progress["step"] % options.every == 0:
            mean = total.item() / count  # here the device is waited for
            seconds = time.monotonic() - since
            since += seconds
            progress["seconds"] += seconds
            speed = count * per_step / seconds
            left = (steps - progress["step"]) * per_step / speed
            held_out = evaluate(model, corpora, options) if check else {}
            report(options.out, progress, mean, held_out)
            print(
                f"step {progress['step']}/{steps}  loss {mean:.4f}  {speed:,.0f} tokens/s  "
                f"{left / 60:.1f} min left  {held_out or ''}",
                flush=True,
            )
            total, count = torch.zeros_like(total), 0
        if check:
            sample(model, options, progress["step"])
            learning.save_checkpoint(options.out, model, optimizer, progress)
    learning.save_checkpoint(options.out, model, optimizer, progress)


def machine(options: argparse.Namespace) -> str:
    """Describe the device of the run, for the model's card."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU cores"
    return f"{name}, torch {torch.__version__}"


def batches(
    corpora: dict[str, data.Corpus],
    phases: list[learning.Phase],
    steps: range,
    options: argparse.Namespace,
    shape: dict[str, int],
) -> Iterator[tuple[int, torch.Tensor]]:
    """The (rows, length + 1) ids of each step, made on a thread a few steps ahead."""

    def make(step: int) -> torch.Tensor:
        phase = learning.phase_at(phases, step)
        rows = torch.from_numpy(
            data.batch(
                corpora,
                step,
                options.rows,
                shape["n_positions"],
                phase.tales,
                phase.repeats,
                shape["vocab_size"],
                options.seed,
            )
        )
        return rows.pin_memory() if options.device == "cuda" else rows

    with ThreadPoolExecutor(1) as thread:
        ahead = deque((step, thread.submit(make, step)) for step in steps[:8])
        for step in steps:
            if step + len(ahead) < steps.stop:
                ahead.append((step + len(ahead), thread.submit(make, step + len(ahead))))
            number, rows = ahead.popleft()
            yield number, rows.result()


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel, corpora: dict[str, data.Corpus], options: argparse.Namespace) -> dict[str, float]:
    """Bits per byte on 24 evenly spaced windows of each kind's held-out text: a quick look, not the final figure."""
    model.eval()
    found = {}
    for kind in data.KINDS:
        corpus = corpora[f"{kind} held out"]
        length = min(model.config.n_positions, len(corpus.ids) - 1)
        starts = torch.linspace(0, len(corpus.ids) - length - 1, 24).long()
        rows = torch.stack([torch.from_numpy(corpus.ids[s : s + length + 1].astype("int64")) for s in starts])
        nats = sum(learning.loss_of(model, part.to(options.device)).item() for part in rows.split(8)) / 3
        found[kind] = round(nats / 0.6931471805599453 / (corpus.bytes / len(corpus.ids)), 4)
    model.train()
    return found


@torch.no_grad()
def sample(model: GPT2LMHeadModel, options: argparse.Namespace, step: int) -> None:
    """One story as the model would write it now, printed and added to ``samples.txt``."""
    tokenizer = tokenizers.Tokenizer.from_file(str(options.out / "tokenizer.json"))
    prompt = torch.tensor([tokenizer.encode("Once upon a time").ids], device=options.device)
    model.eval()
    torch.manual_seed(options.seed)
    ids = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=0.8,
        top_k=0,
        max_new_tokens=60,
        pad_token_id=0,
    )
    model.train()
    text = tokenizer.decode(ids[0].tolist())
    print(text, flush=True)
    with (options.out / "samples.txt").open("a", encoding="utf-8") as file:
        file.write(f"--- step {step}\n{text}\n")


def report(out: Path, progress: dict[str, Any], loss: float, held_out: dict[str, float]) -> None:
    """One more line of the loss curve, ``loss.csv``."""
    path = out / "loss.csv"
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            kinds = [f"{kind}_bits_per_byte" for kind in data.KINDS]
            writer.writerow(["step", "tokens", "seconds", "loss_nats", *kinds])
        writer.writerow(
            [
                progress["step"],
                progress["tokens"],
                round(progress["seconds"]),
                round(loss, 4),
                *(held_out.get(kind, "") for kind in data.KINDS),
            ]
        )


if __name__ == "__main__":
    main()
