"""How true each method of attribution is on the bundled model: the tables of docs/attribution.md.

    python scripts/attribution_table.py            # prints them
    python scripts/attribution_table.py --write    # writes them into the page

The task: *he* or *she* after "The … was sad because", the clean prompt with a word for him, the corrupted one with a
word for her. Nodes: Pearson's correlation of each method's scores with patching every node, a pair at a time. Edges:
the correlation with patching every edge, on one pair; the faithfulness of circuits of the best edges, over all pairs.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from gpt2_np import GPT2
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution

PAGE = Path(__file__).parent.parent / "docs" / "attribution.md"
FRAMES = ("The {} was sad because", "The {} was happy because")
PEOPLE = (("boy", "girl"), ("king", "queen"), ("man", "woman"), ("prince", "princess"))
POINTS = {"resid_pre": "residual stream", "attn_out": "attention", "mlp_out": "MLP"}
NODE_METHODS = ("atp", "atp*", "relp")
EDGE_METHODS = ("eap", "eap-ig", "relp")
SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
METRIC = logit_difference(" he", " she")


def pairs(model: GPT2) -> list[tuple[str, str]]:
    """Pairs of prompts of equally many tokens."""
    both = [(frame.format(he), frame.format(she)) for frame in FRAMES for he, she in PEOPLE]
    return [pair for pair in both if len({len(model.tokenizer.encode(text)) for text in pair}) == 1]


def of_nodes(model: GPT2, chosen: list[tuple[str, str]]) -> str:
    """The first table: mean and standard deviation over pairs of the correlation with patching, by kind of node."""
    names = [f"blocks.*.{point}" for point in POINTS]
    found: dict[str, dict[str, list[float]]] = {m: {point: [] for point in POINTS} for m in NODE_METHODS}
    for clean, corrupted in chosen:
        exact = attribution.exact_nodes(model, clean, corrupted, METRIC, names=names, prepend_bos=True)
        for method, table in found.items():
            estimate = attribution.nodes(model, clean, corrupted, METRIC, method, names=names, prepend_bos=True)
            for point, value in attribution.agreement(estimate, exact).items():
                table[point].append(value)
    rows = [f"| nodes | {' | '.join(POINTS.values())} |", f"|---|{'---|' * len(POINTS)}"]
    for method, table in found.items():
        cells = (f"{np.mean(values):.3f} ± {np.std(values):.3f}" for values in table.values())
        rows.append(f"| {method.replace('*', chr(92) + '*')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def of_edges(model: GPT2, chosen: list[tuple[str, str]]) -> str:
    """The second table: correlation with patching every edge of the first pair, faithfulness by size, CPR, CMD."""
    heads = [f"{share:.1%}".replace(".0%", "%") for share in SHARES]
    rows = [f"| edges | correlation | {' | '.join(heads)} | CPR | CMD |", f"|---|{'---|' * (len(SHARES) + 3)}"]
    clean, corrupted = ([pair[side] for pair in chosen] for side in (0, 1))
    exact = attribution.exact_edges(model, clean[0], corrupted[0], METRIC, prepend_bos=True)
    for method in EDGE_METHODS:
        one = attribution.edges(model, clean[0], corrupted[0], METRIC, method, prepend_bos=True)
        found = attribution.edges(model, clean, corrupted, METRIC, method, prepend_bos=True)
        curve = attribution.curve(found, SHARES)
        cells = [f"{attribution.agreement(one, exact)['edges']:.3f}", *(f"{x:.2f}" for x in curve.faithfulness)]
        rows.append(f"| {method} | {' | '.join(cells)} | {curve.cpr:.3f} | {curve.cmd:.3f} |")
    return "\n".join(rows)


def main() -> None:
    """Print the tables, or write them between the page's marks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    model = GPT2.from_pretrained(backend="numpy")
    chosen = pairs(model)
    by_node = f"{len(chosen)} pairs.\n\n{of_nodes(model, chosen)}\n"
    print(by_node, flush=True)
    by_edge = of_edges(model, chosen)
    print(by_edge)
    text = f"{by_node}\n{by_edge}"
    if arguments.write:
        marked = re.compile(r"(<!-- tables -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(marked.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
