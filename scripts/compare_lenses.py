"""Measure each lens's distance from the output, layer by layer, on held-out text: the table of docs/guide/lenses.md.

    python scripts/compare_lenses.py --text TEXT --lens LENS [--texts 100] [--held-out 50]

TEXT is the folder with ``tales.txt.xz``. The tuned and the Jacobian lens are fitted on the same pieces of 128 tokens,
one from each of some documents that the bundled model was trained on. LENS is the file of the Jacobian lens, from which
an interrupted fit continues. On pieces of held-out documents, from the 16th position on, the script measures the mean
of KL(output ‖ lens) in nats, and the share of positions at which the likeliest token is that of the output.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from training import data

from gpt2_np import GPT2
from gpt2_np.internals import jacobian_lens
from gpt2_np.internals.lens import Lens, logit_lens, train_tuned_lens

Array = np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with tales.txt.xz")
    parser.add_argument("--lens", type=Path, required=True, help="where the Jacobian lens is kept")
    parser.add_argument("--texts", type=int, default=100, help="pieces that lenses are fitted on")
    parser.add_argument("--held-out", type=int, default=50, help="pieces that they are measured on")
    options = parser.parse_args()
    model = GPT2.from_pretrained(backend="numpy")
    fitted_on, measured_on = (
        list(islice(pieces(model, options.text, held), number))
        for held, number in ((False, options.texts), (True, options.held_out))
    )
    after = jacobian_lens.load(options.lens) if options.lens.exists() else None
    jacobian = jacobian_lens.fit(model, fitted_on, after=after, part=lambda lens: lens.save(options.lens))
    jacobian.save(options.lens)
    tuned = train_tuned_lens(model, fitted_on)
    lenses: dict[str, Callable[[list[int]], Lens]] = {
        "logit": lambda ids: logit_lens(model, ids),
        "tuned": lambda ids: tuned(model, ids),
        "Jacobian": lambda ids: jacobian(model, ids),
    }
    found = {name: np.mean([measures(lens(ids)) for ids in measured_on], axis=0) for name, lens in lenses.items()}
    print(f"{jacobian.texts} texts to fit on, {len(measured_on)} to measure on: KL in nats, and agreement\n")
    print("| stream | " + " | ".join(found) + " | " + " | ".join(f"{name} agrees" for name in found) + " |")
    print("|---" * (1 + 2 * len(found)) + "|")
    for at in range(model.config.n_layer):
        columns = [f"{values[at, 0]:.2f}" for values in found.values()]
        columns += [f"{values[at, 1]:.0%}" for values in found.values()]
        print(f"| behind layer {at} | " + " | ".join(columns) + " |")


def pieces(model: GPT2, text: Path, held: bool) -> Iterator[list[int]]:
    """The middle of each document that is long enough, 128 tokens: of the held-out ones, or of the others."""
    documents = [one for one in data.documents(text, "tales") if data.is_held_out(one) == held]
    for number in np.random.default_rng(0).permutation(len(documents)):
        ids = model.tokenizer.encode(documents[number][:4000])
        if len(ids) >= 2 * jacobian_lens.LENGTH:
            start = (len(ids) - jacobian_lens.LENGTH) // 2
            yield ids[start : start + jacobian_lens.LENGTH]


def measures(looked: Lens) -> Array:
    """The divergence from the output and the agreement with it behind each layer: (L, 2)."""
    counted = slice(jacobian_lens.SKIPPED, -1)
    best = looked.logits.argmax(-1)
    both = np.stack([looked.divergence(), best == best[-1]], axis=-1)[:, counted].mean(axis=1)
    return both[-len(both) + (looked.labels[0] == "0_pre") :]


if __name__ == "__main__":
    main()
