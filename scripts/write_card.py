"""Write the bundled model's card: its figures measured here, its samples unedited.

    python scripts/write_card.py gpt2_np/bundled/tales --text TEXT --run runs/tales

Bits per byte are `gpt2-np score`'s on every held-out document, one document at a time; the induction score is the
attention that a head pays, on random tokens that repeat, to what followed the same token before.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from training import data, learning

from gpt2_np import GPT2
from gpt2_np.model.params import flatten

SAMPLES = [
    ("Once upon a time", 1),
    ("The king had three daughters", 2),
    ("One day a little mouse", 3),
    ("In the middle of the forest", 4),
    ("The old woman", 5),
    ("“Who are you?” said the fox.", 6),
    ("A very long time ago, when", 7),
    ("The clock struck twelve", 8),
    ("The captain looked at the sea", 9),
    ("There was once a poor boy who", 10),
]


# A small model loops where it may and rambles where it must not: these keep it between the two.
STORY: dict[str, Any] = {
    "max_new_tokens": 120,
    "temperature": 0.7,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
}
SCHEDULE = Path(__file__).parent / "training" / "tales.csv"


def command(options: dict[str, float]) -> str:
    """Sampling options as they are given on the command line."""
    given = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    return f"gpt2-np generate PROMPT --do-sample {given}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the model's folder; its README.md is written")
    parser.add_argument("--text", type=Path, required=True, help="the folder with the text and its SOURCES.md")
    parser.add_argument("--run", type=Path, help="the folder that train_bundled.py wrote: on what it computed")
    parser.add_argument("--keep-figures", action="store_true", help="take figures.json as it is: measure nothing anew")
    options = parser.parse_args()
    if options.run is None and not options.keep_figures:
        parser.error("--run is needed where figures are measured anew")
    model = GPT2.from_pretrained(options.folder)
    if options.keep_figures:
        figures = json.loads((options.folder / "figures.json").read_text())
    else:
        scores = {kind: held_out(model, options.text, kind) for kind in data.KINDS}
        parameters = sum(array.size for _, array in flatten(model.params))
        device, version = json.loads((options.run / "settings-0.json").read_text())["on"].split(", ")
        figures = {
            "held_out": scores,
            "induction": induction(model),
            "parameters": parameters,
            "trained_on": {"device": device, "torch": version},
        }
        (options.folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    shutil.copy(options.text / "ATTRIBUTION-african-storybook.tsv", options.folder)
    (options.folder / "README.md").write_text(card(model, options.folder, options.text, figures))
    print((options.folder / "README.md").read_text())


def held_out(model: GPT2, text: Path, kind: str) -> dict[str, float]:
    """Bits per byte over all held-out documents of a kind; windows of the whole context, half a context on."""
    nll, size, tokens, count = 0.0, 0, 0, 0
    for document in data.documents(text, kind):
        if data.is_held_out(document):
            score = model.score(document)
            nll, size, tokens, count = nll + score.nll, size + score.bytes, tokens + score.tokens, count + 1
    return {
        "documents": count,
        "bytes": size,
        "tokens": tokens,
        "bits_per_byte": nll / math.log(2) / size,
        "perplexity": math.exp(nll / tokens),
    }


def induction(model: GPT2, period: int = 50, rows: int = 16, seed: int = 0) -> list[list[float]]:
    """Each layer's heads' scores: the mean attention from a token to what followed it one period before."""
    passage = np.random.default_rng(seed).integers(1, model.config.vocab_size, (rows, period))
    ids = np.concatenate([np.zeros((rows, 1), np.int64), passage, passage], axis=1)
    _, cache = model.run_with_cache(ids, "blocks.*.attn.pattern")
    here = np.arange(period + 1, 2 * period + 1)
    return [
        [round(float(one), 4) for one in cache[name][:, :, here, here - period + 1].mean(axis=(0, 2))]
        for name in sorted(cache, key=lambda name: int(name.split(".")[1]))
    ]


def card(model: GPT2, folder: Path, text: Path, figures: dict[str, Any]) -> str:
    """The whole card as Markdown."""
    with (folder / "loss.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    config, scores, on = model.config, figures["held_out"], figures["trained_on"]
    best = max((score, layer, head) for layer, row in enumerate(figures["induction"]) for head, score in enumerate(row))
    lines = [
        "---",
        "language: en",
        "license: mit",
        "library_name: transformers",
        "tags: [gpt2, stories, interpretability]",
        "---",
        "",
        "# tales",
        "",
        "A small GPT-2 that tells stories, made for reading, testing and teaching: it ships with gpt2_np. "
        f"{figures['parameters']:,} parameters: {config.n_layer} layers, {config.n_head} heads, width {config.n_embd}, "
        f"context {config.n_positions}, and a byte-level BPE of its own with {config.vocab_size:,} entries. "
        "transformers loads this folder too.",
        "",
        "## How good it is",
        "",
        "On documents that were not trained on, measured with `gpt2-np score` on the weights in this folder:",
        "",
        "| text | documents | bytes | bits per byte | perplexity per token |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {one['documents']} | {one['bytes']:,} | {one['bits_per_byte']:.3f} | {one['perplexity']:.1f} |"
            for kind, one in scores.items()
        ),
        "",
        "`python scripts/held_out.py --text TEXT --out held-out` writes these documents, scores each with `gpt2-np score` "
        "and adds up. A document is held out if its SHA-256 says so (`scripts/training/data.py`), 3 in 100.",
        "",
        "![training loss and held-out bits per byte](loss.png)",
        "",
        f"Strongest induction head: layer {best[1]}, head {best[2]}, score {best[0]:.2f} (mean attention to what followed "
        "the same token before, on random tokens that repeat after 50). Every head's score is in `figures.json`.",
        "",
        "## What it is bad at",
        "",
        "Facts, sums, instructions, long plots. It is far too small to know anything: sentences hold together, names and "
        "places last a few of them, then the story drifts. Its English is that of fairy tales and of novels from 1839 to "
        "1930, and so are the prejudices of its texts.",
        "",
        "## Training",
        "",
        f"{int(last['tokens']):,} tokens in {int(last['seconds']) / 60:.1f} minutes on one {on['device']} ({on['torch']}, "
        "bfloat16 products), with `scripts/train_bundled.py`, seed 0: Muon for the blocks' matrices, AdamW for the rest, "
        "linear warm-up and a cosine down, gradients clipped at 1, dropout 0.1, weight decay 0.1, 128 rows of 512 tokens a "
        "step. Some rows are from the tales, the others from the novels, so that a novel was read about 32 times and a tale "
        "about 56. In some rows a passage repeats over and over, of the text or of random tokens; it takes induction heads to "
        "predict that.",
        "",
        "| from step | planned tokens | rows from the tales | rows in which a passage repeats |",
        "|---|---|---|---|",
        *(
            f"| {one.step:,} | {one.tokens:,} | {one.tales:.0%} | {one.repeats:.0%} |"
            for one in learning.read_phases(SCHEDULE)
        ),
        "",
        "The loss curve is in `loss.csv`; the weights were rounded once, to float16. One command runs the same schedule, "
        "in one sitting or as many as you like, and another makes this folder of it. On another device or with another torch "
        "the weights come out a little different; on one they are the same: 300 steps, once in one go and once stopped and "
        "taken up again, gave the same bits.",
        "",
        "```sh",
        "python scripts/train_bundled.py --text TEXT --out runs/tales --schedule scripts/training/tales.csv \\",
        "    --device cuda --every 100 --check 2000",
        "python scripts/export_bundled.py runs/tales runs/model",
        "```",
        "",
        "## Where the text came from",
        "",
        sources(text),
        "",
        "## Ten stories",
        "",
        f"Unedited, and none drawn twice: prompt number N with seed N, `{command(STORY)} --seed N`. The settings were "
        "chosen by reading the first five prompts under four settings.",
        "",
        *samples(model),
        "## The same beginning, by strategy",
        "",
        *strategies(model),
    ]
    return "\n".join(lines) + "\n"


def sources(text: Path) -> str:
    """The table of parts, origins and licences from the text's own SOURCES.md."""
    table = (text / "SOURCES.md").read_text()
    return table[table.index("| part | origin |") :].strip().replace("keep it with the model card", "in this folder")


def quoted(text: str) -> list[str]:
    return [f"> {line}" if line else ">" for line in text.splitlines()] + [""]


def samples(model: GPT2) -> list[str]:
    """Ten continuations, each with its seed."""
    lines = []
    for prompt, seed in SAMPLES:
        out = model.generate(prompt, do_sample=True, seed=seed, **STORY)
        lines += [f"Seed {seed}:", "", *quoted(f"**{prompt}**{out.text}")]
    return lines


def strategies(model: GPT2) -> list[str]:
    """One prompt, a few strategies."""
    prompt, lines = "Once upon a time there was", []
    for name, options in (
        ("greedy", {}),
        ("4 beams", {"num_beams": 4}),
        ("4 beams, no repeated trigram", {"num_beams": 4, "no_repeat_ngram_size": 3}),
        ("contrastive search, alpha 0.6, 4 candidates", {"penalty_alpha": 0.6, "top_k": 4}),
        ("temperature 1, seed 1", {"do_sample": True, "seed": 1}),
        ("top-k 20, seed 1", {"do_sample": True, "top_k": 20, "seed": 1}),
        ("top-p 0.9, seed 1", {"do_sample": True, "top_p": 0.9, "seed": 1}),
        ("min-p 0.1, seed 1", {"do_sample": True, "min_p": 0.1, "seed": 1}),
        ("the settings of the stories, seed 1", {"do_sample": True, "seed": 1, **STORY, "max_new_tokens": 60}),
    ):
        lines += [f"{name}:", "", *quoted(prompt + model.generate(prompt, **{"max_new_tokens": 60} | options).text)]
    return lines


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
