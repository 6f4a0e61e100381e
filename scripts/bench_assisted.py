"""Measure what assistance saves: greedy decoding with and without it in alternating runs, whose tokens are compared.

    python scripts/bench_assisted.py --folder out/bench/gpt2
    python scripts/bench_assisted.py --accepted [--write]

With ``--accepted`` it reports how many candidates were accepted in each pass, for every source of candidates on four
kinds of text by the bundled model; ``--write`` puts the table into docs/decoding/README.md.

`bench.py` imports `rows`. What assistance saves depends on how often candidates are accepted. The weights of the 124M
shape are random, except that the blocks' contributions to the residual stream are scaled down: then the text soon
repeats itself, and nearly every candidate is accepted. The draft model is their first two layers in int8. The bundled
model continues a real text that repeats itself, where about every other candidate is accepted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.measure import Row
from benchmarks.report import table

from gpt2_np import GPT2
from gpt2_np.model.params import Linear, Norm
from gpt2_np.weights.quantize import quantize

QUIET = np.float32(0.02)  # what blocks add to the stream, as a share of what the random weights would


def compared(what: str, model: GPT2, prompt: Any, new: int, runs: int, **how: Any) -> Row:
    """One row: tokens/s without and with assistance (medians), their ratio, and what came of the candidates."""
    settings: dict[str, Any] = {"max_new_tokens": new, "eos_token_id": None}
    taken: dict[bool, list[float]] = {False: [], True: []}
    for run in range(runs + 1):
        found = {}
        for helped in (False, True):
            start = time.perf_counter()
            found[helped] = model.generate(prompt, **settings, **(how if helped else {}))
            if run:
                taken[helped].append(time.perf_counter() - start)
        if found[False].ids != found[True].ids or found[False].logprobs != found[True].logprobs:
            raise ValueError(f"{what}: assistance changed the text")
    plain, fast = (statistics.median(taken[helped]) for helped in (False, True))
    told = found[True].assistance
    note = f"{told.accepted} of {told.proposed} guesses right, {told.passes} passes for {new} tokens"
    return Row(what, new / fast, "tokens/s", {"without": new / plain}, note=note)


def repeating(model: GPT2) -> GPT2:
    """The same model with blocks that add little and a plain last norm, so that its text repeats itself."""

    def quiet(part: Linear) -> Linear:
        return Linear(part.weight * QUIET, part.bias * QUIET)

    blocks = [
        block._replace(
            attn=block.attn._replace(c_proj=quiet(block.attn.c_proj)),
            mlp=block.mlp._replace(c_proj=quiet(block.mlp.c_proj)),
        )
        for block in model.params.h
    ]
    norm = Norm(np.ones_like(model.params.ln_f.weight), np.zeros_like(model.params.ln_f.bias))
    return model.with_params(model.params._replace(h=tuple(blocks), ln_f=norm))


def first_layers(model: GPT2, layers: int) -> GPT2:
    """A draft: the first layers of a model under its own head, in int8."""
    params = quantize(model.params._replace(h=model.params.h[:layers]), "int8")
    return GPT2(params, replace(model.config, n_layer=layers))


def rows(folder: Path, runs: int = 5, new: int = 100) -> list[Row]:
    """Prompt look-up and a draft model, on a checkpoint of the 124M shape and on the bundled model."""
    large = repeating(GPT2.from_pretrained(folder))
    ids = np.random.default_rng(1).integers(0, large.config.vocab_size, 64).tolist()
    tales, text = GPT2.from_pretrained(), "The king was old. The king was old. The king was old. The king"
    lookup, draft = {"prompt_lookup_num_tokens": 10}, first_layers(large, 2)
    return [
        compared("124M shape, repeating: prompt look-up", large, ids, new, runs, **lookup),
        compared(
            "124M shape, repeating: a draft of 2 layers in int8",
            large,
            ids,
            new,
            runs,
            assistant_model=draft,
            num_assistant_tokens=10,
            assistant_confidence_threshold=0.0,
        ),
        compared("tales (bundled): prompt look-up", tales, text, new, runs, **lookup),
    ]


# Beginnings of four kinds of text that the bundled model knows how to go on with.
TEXTS = {
    "a tale": "Once upon a time there was a poor woodcutter who lived with his wife and his three sons at the edge of "
    "a great forest. One day the eldest said to his father,",
    "a refrain": "The first day the king's son rode out and said, “Open the gate, open the gate!” but no one heard "
    "him. The second day the king's son rode out and said, “Open the gate, open the gate!” but no one heard him. "
    "The third day the king's son",
    "a dialogue": "“Where are you going?” said the fox. “To the mill,” said the hare. “Where are you going?” said the "
    "fox. “To the mill,” said the goose. “Where are you going?” said",
    "a list": "There was a cow in the meadow, a horse in the stable, a dog in the yard, a cat in the kitchen, a mouse "
    "in the cellar, a cow in the meadow,",
}
NGRAMS: dict[str, Any] = {"spec_ngram_size_n": 3, "spec_ngram_size_m": 10, "draft_min": 1}
SOURCES: dict[str, dict[str, Any]] = {
    "prompt look-up, 10 ids": {"prompt_lookup_num_tokens": 10},
    **{
        f"{kind}, n 3": {"spec_type": kind} | NGRAMS
        for kind in ("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod")
    },
    "ngram-cache": {"spec_type": "ngram-cache"},
    **{
        f"early exit, {layers} layers": {"assistant_early_exit": layers, "num_assistant_tokens": 5}
        for layers in (1, 2, 4)
    },
}
PAGE = Path(__file__).parent.parent / "docs" / "decoding" / "README.md"
MARKERS = ("<!-- accepted -->\n", "<!-- end of accepted -->")


def accepted(new: int = 160) -> str:
    """Candidates that were right a pass, as a Markdown table; the text is the one without assistance throughout."""
    model = GPT2.from_pretrained()
    settings: dict[str, Any] = {"max_new_tokens": new, "eos_token_id": None}
    plain = {kind: model.generate(text, **settings).ids for kind, text in TEXTS.items()}
    lines = [
        f"Accepted candidates in each pass of the bundled model, for {new} new ids, greedy "
        "(`python scripts/bench_assisted.py --accepted --write`):\n",
        "| | " + " | ".join(TEXTS) + " |",
        "|---" * (len(TEXTS) + 1) + "|",
    ]
    for name, how in SOURCES.items():
        if how.get("assistant_early_exit", 0) >= model.config.n_layer:
            continue
        cells = []
        for kind, text in TEXTS.items():
            out = model.generate(text, **settings, **how)
            if out.ids != plain[kind] or out.assistance is None:
                raise ValueError(f"{name}: assistance changed the text")
            cells.append(f"{out.assistance.accepted / out.assistance.passes:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a checkpoint of the 124M shape")
    parser.add_argument("--accepted", action="store_true", help="how many candidates a pass are right")
    parser.add_argument("--write", action="store_true", help="put that table into docs/decoding/README.md")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    if options.accepted:
        found = accepted()
        print(found)
        if options.write:
            before, rest = PAGE.read_text(encoding="utf-8").split(MARKERS[0])
            PAGE.write_text(before + MARKERS[0] + found + MARKERS[1] + rest.split(MARKERS[1])[1], encoding="utf-8")
        return
    if options.folder is None:
        parser.error("--folder is needed, unless --accepted is given")
    print(table(rows(options.folder, options.runs)))


if __name__ == "__main__":
    main()
