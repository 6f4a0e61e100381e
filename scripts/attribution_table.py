"""Measure how faithful each method of attribution is, and write the tables of docs/attribution.md.

    python scripts/attribution_table.py                  # prints the bundled model's tables
    python scripts/attribution_table.py --random         # prints those of a random model of GPT-2 small's shape (2 GB)
    python scripts/attribution_table.py --write          # writes the bundled model's tables into the page

The bundled model's task is *he* or *she* after "The … was sad because": the clean prompt has a masculine noun, the
corrupted one a feminine noun. The random model has pairs of eight random ids that differ in two places, and two random
answers. For nodes, the table holds Pearson's correlation of each method's scores with exact patching of every node,
pair by pair. For edges, it holds the correlation with exact patching of every edge on one pair (only for the bundled
model, since the random one has 32,491 edges), and the faithfulness of circuits of the best edges over all pairs.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_internals import save_random_model

from gpt2_np import GPT2
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution
from gpt2_np.session.model import Model

PAGE = Path(__file__).parent.parent / "docs" / "attribution.md"
FRAMES = ("The {} was sad because", "The {} was happy because")
PEOPLE = (("boy", "girl"), ("king", "queen"), ("man", "woman"), ("prince", "princess"))
POINTS = {"resid_pre": "residual stream", "attn_out": "attention", "mlp_out": "MLP"}
NODE_METHODS = ("atp", "atp*", "relp")
EDGE_METHODS = ("eap", "eap-ig", "relp")
SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Task:
    """Pairs of prompts and what is measured: a metric for all of them, and ``of_pair`` for each alone."""

    model: Model
    clean: Sequence[Any]
    corrupted: Sequence[Any]
    metric: Any
    bos: bool
    exact_edges: bool

    def of_pair(self, number: int) -> tuple[Any, Any, Any]:
        """A pair's prompts and its metric."""
        return self.clean[number], self.corrupted[number], self.metric.of_row(number)


def bundled() -> Task:
    """He or she, of the bundled model: pairs of equally many tokens."""
    model = GPT2.from_pretrained(backend="numpy")
    both = [(frame.format(he), frame.format(she)) for frame in FRAMES for he, she in PEOPLE]
    pairs = [pair for pair in both if len({len(model.tokenizer.encode(text)) for text in pair}) == 1]
    clean, corrupted = zip(*pairs, strict=True)
    he, she = ([model.to_single_token(word)] * len(pairs) for word in (" he", " she"))
    return Task(model, clean, corrupted, logit_difference(he, she), True, True)


def random_shape(folder: Path, pairs: int = 3, tokens: int = 8) -> Task:
    """Random ids, of a random model of 124 million parameters."""
    save_random_model(folder)
    model, random = Model.from_pretrained(folder, backend="numpy"), np.random.default_rng(0)
    V = model.config.vocab_size
    clean = random.integers(0, V, (pairs, tokens))
    corrupted = clean.copy()
    corrupted[:, [tokens // 4, tokens // 2]] = random.integers(0, V, (pairs, 2))
    right, wrong = random.integers(0, V, (2, pairs))
    return Task(model, list(clean), list(corrupted), logit_difference(right, wrong), False, False)


def of_nodes(task: Task) -> str:
    """The first table: mean and standard deviation over pairs of the correlation with patching, by kind of node."""
    names = [f"blocks.*.{point}" for point in POINTS]
    found: dict[str, dict[str, list[float]]] = {m: {point: [] for point in POINTS} for m in NODE_METHODS}
    for number in range(len(task.clean)):
        pair = task.of_pair(number)
        exact = attribution.exact_nodes(task.model, *pair, names=names, prepend_bos=task.bos)
        for method, table in found.items():
            estimate = attribution.nodes(task.model, *pair, method, names=names, prepend_bos=task.bos)
            for point, value in attribution.agreement(estimate, exact).items():
                table[point].append(value)
    rows = [f"| nodes | {' | '.join(POINTS.values())} |", f"|---|{'---|' * len(POINTS)}"]
    for method, table in found.items():
        cells = (f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in table.values())
        rows.append(f"| {method.replace('*', chr(92) + '*')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def of_edges(task: Task) -> str:
    """The second table: correlation with patching every edge of the first pair, faithfulness by size, CPR, CMD."""
    heads = [f"{share:.1%}".replace(".0%", "%") for share in SHARES]
    columns = [*(["correlation"] if task.exact_edges else []), *heads, "CPR", "CMD"]
    rows = [f"| edges | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    first = task.of_pair(0)
    exact = attribution.exact_edges(task.model, *first, prepend_bos=task.bos) if task.exact_edges else None
    for method in EDGE_METHODS:
        found = attribution.edges(
            task.model, list(task.clean), list(task.corrupted), task.metric, method, prepend_bos=task.bos
        )
        curve = attribution.curve(found, SHARES)
        cells = [*(f"{x:.2f}" for x in curve.faithfulness), f"{curve.cpr:.3f}", f"{curve.cmd:.3f}"]
        if exact is not None:
            one = attribution.edges(task.model, *first, method, prepend_bos=task.bos)
            cells.insert(0, f"{attribution.agreement(one, exact)['edges']:.3f}")
        rows.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Print the tables, or write them between the page's marks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", action="store_true", help="a random model of GPT-2 small's shape")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.random and arguments.write:
        parser.error("--write is for the bundled model's tables, the page's; leave out --random")
    with tempfile.TemporaryDirectory() as folder:
        task = random_shape(Path(folder)) if arguments.random else bundled()
        by_node = f"{len(task.clean)} pairs.\n\n{of_nodes(task)}\n"
        print(by_node, flush=True)
        by_edge = of_edges(task)
        print(by_edge)
    if arguments.write:
        marked = re.compile(r"(<!-- tables -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        text = marked.sub(lambda match: f"{match[1]}{by_node}\n{by_edge}\n{match[2]}", page)
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
