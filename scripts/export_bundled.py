"""Export a training run as a model's folder: weights, configuration, tokenizer, loss curve.

    python scripts/export_bundled.py runs/tales gpt2_np/bundled/tales

The folder has the format of transformers, so `GPT2LMHeadModel.from_pretrained` and `AutoTokenizer` can load it too. The
weights are rounded once, to bfloat16 or float16. `scripts/write_card.py` writes the model card.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder that train_bundled.py wrote")
    parser.add_argument("folder", type=Path, help="the model's folder to make or replace")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    options = parser.parse_args()
    export(options.run, options.folder, DTYPES[options.dtype])


def export(run: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write the folder beside itself and rename it into place, so that no one ever meets half of it."""
    progress = json.loads((run / "progress.json").read_text())
    settings = json.loads(max(run.glob("settings-*.json"), key=lambda path: int(path.stem.split("-")[1])).read_text())
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part) if folder.is_dir() else part.mkdir(parents=True)

    kept = load_file(run / progress["checkpoint"]).items()
    tensors = {
        name.removeprefix("model."): tensor.to(dtype).contiguous() for name, tensor in kept if name.startswith("model.")
    }
    save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
    (part / "model.safetensors").chmod(0o644)
    shape = settings["shape"]
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **shape,
        **ends,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "dtype": str(dtype).removeprefix("torch."),
    }
    end = "<|endoftext|>"
    tokenizer = {
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": shape["n_positions"],
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "add_prefix_space": False,
    }
    settings = {"config.json": config, "generation_config.json": ends, "tokenizer_config.json": tokenizer}
    for name, content in settings.items():
        (part / name).write_text(json.dumps(content, indent=2) + "\n")
    shutil.copy(run / "tokenizer.json", part)
    (part / "loss.csv").write_text("\n".join(lineage((run / "loss.csv").read_text().splitlines())) + "\n")
    plot(part / "loss.csv", part / "loss.png")

    old = folder.with_name(folder.name + ".old")
    if folder.is_dir():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def lineage(lines: list[str]) -> list[str]:
    """The loss curve without the steps that a later sitting, going on from an earlier checkpoint, took again."""
    head, *rows = lines
    kept: list[str] = []
    for row in rows:
        while kept and int(kept[-1].split(",")[0]) >= int(row.split(",")[0]):
            kept.pop()
        kept.append(row)
    return [head, *kept]


def plot(table: Path, picture: Path) -> None:
    """The loss curve: training loss and held-out bits per byte against tokens seen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with table.open() as file:
        rows = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) / 1e6 for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(tokens, [float(row["loss_nats"]) for row in rows], color="#4269d0", linewidth=1)
    left.set(xlabel="tokens seen (millions)", ylabel="loss (nats per token)", title="training", ylim=(None, 6))
    for column, color in (("tales_bits_per_byte", "#ff725c"), ("novels_bits_per_byte", "#3ca951")):
        points = [(t, float(row[column])) for t, row in zip(tokens, rows, strict=True) if row[column]]
        right.plot(*zip(*points, strict=True), color=color, label=column.split("_")[0], marker=".", markersize=4)
    right.set(xlabel="tokens seen (millions)", ylabel="bits per byte", title="held-out documents")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
