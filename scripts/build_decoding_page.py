"""Write docs/decoding/README.md: every strategy and processor on one prompt, with its picture.

    python scripts/build_decoding_page.py

The text about a method comes from the method's own statement (`decoders.base.method.Documentation`), and every call is
run on the bundled model. Two sections, constraints and speculation, are written by hand between markers and are kept.
"""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from decoders import methods
from decoders.base.method import Documentation, Method
from decoders.base.value_types import PHRASES, SEQUENCE_BIAS
from decoders.base.watching import entropy, shares
from decoders.generate import chain
from decoders.processors.pipeline import apply
from decoders.searches.beam_common import Step
from gpt2_np import GPT2

PAGE = Path(__file__).parent.parent / "docs" / "decoding" / "README.md"
Picture = Callable[[GPT2, Documentation, Path], None]
GREY, BLUE, RED, INK = "#c9ced6", "#4269d0", "#e4572e", "#333"
SHOWN, LENGTH, SEED = 12, 20, 1
STEPS = 5  # of a search, in its picture
plt.rcParams.update(
    {
        "font.size": 8.5,
        "axes.edgecolor": "#999",
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.dpi": 110,
    }
)


def ids_for(model: GPT2, value: Any) -> Any:
    """Texts in lists as their ids, for the options that take ids alone."""
    if isinstance(value, str):
        return model.tokenizer.encode(value)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(one, str) for one in value):
            return [token for one in value for token in model.tokenizer.encode(one)]
        return [ids_for(model, one) for one in value]
    return value


def asked(model: GPT2, entry: Documentation) -> dict[str, Any]:
    """The options of an entry's call."""
    options = dict(entry.example)
    for name, value in options.items():
        if methods.option(name).kind in (PHRASES, SEQUENCE_BIAS):
            options[name] = ids_for(model, value)
    return options | ({"do_sample": True, "seed": SEED} if entry.random else {})


def calls(model: GPT2, entry: Documentation) -> str:
    """The Python line, and the command where every option has a flag."""
    options = asked(model, entry)
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    text = f"```python\nmodel.generate({entry.prompt!r}, max_new_tokens={LENGTH}{', ' * bool(shown)}{shown})\n```\n"
    words = ["gpt2-np", "generate", entry.prompt, "-n", str(LENGTH)]
    for name, value in options.items():
        listed = methods.OPTIONS[name]
        flag = listed.flag.split("/")[-1]
        if not flag:
            return text
        if value is True:
            words.append(flag)
        else:
            for one in value if listed.repeatable else [value]:
                words += [flag, json.dumps(one) if isinstance(one, dict) else str(one)]
    return f"```sh\n{shlex.join(words)}\n```\n\n{text}"


def before_and_after(model: GPT2, entry: Documentation, path: Path) -> None:
    """The next token's distribution as the model gives it, and as the option leaves it."""
    ids = model.prompt_ids(entry.prompt)
    _, options = model.options(asked(model, entry))
    scores = model(ids)[-1:]
    after = apply(chain(options, 0, len(ids), len(ids) + LENGTH), [np.array(ids)], scores)
    p, q = shares(scores[0]), shares(after[0])
    order = np.argsort(-p, kind="stable")[:SHOWN].tolist()
    grown = [token for token in np.argsort(p - q, kind="stable")[:3].tolist() if q[token] - p[token] > 0.01]
    order += [token for token in grown if token not in order]
    figure, axes = plt.subplots(figsize=(6.2, 0.19 * len(order) + 0.75), layout="constrained")
    places = np.arange(len(order))
    axes.barh(places - 0.2, p[order], height=0.38, color=GREY, label="the model")
    axes.barh(places + 0.2, q[order], height=0.38, color=BLUE, label="after it")
    for place, token in enumerate(order):
        if q[token] == 0 or after[0, token] < -1e30:
            axes.text(p[token] + 0.004, place, "removed", va="center", color=RED, fontsize=7)
    axes.set_yticks(places, [model.tokenizer.decode([token]).replace("\n", "\\n") or "?" for token in order])
    axes.invert_yaxis()
    axes.set_xlabel("probability of the next token")
    axes.spines[["top", "right"]].set_visible(False)
    left = int((after[0] > np.finfo(np.float32).min * 1e-3).sum())
    axes.legend(
        loc="lower right",
        frameon=False,
        title=f"{left:,} of {len(p):,} tokens left\nentropy {entropy(p):.2f} → {entropy(q):.2f} nats",
        alignment="left",
        title_fontsize=8.5,
    )
    figure.savefig(path)
    plt.close(figure)


def tree(model: GPT2, entry: Documentation, path: Path) -> None:
    """Draw what a search kept at each step, with the best text's path in red."""
    trace: list[Any] = []
    options = asked(model, entry)
    best = model.generate(entry.prompt, max_new_tokens=STEPS, eos_token_id=None, trace=trace, **options)
    if isinstance(trace[0], Step):
        groups = options.get("num_beam_groups", 1)
        kept = [
            [beam.ids for step in trace[start : start + groups] for beam in step.running if beam.score > -1e8]
            or [beam.ids for step in trace[start : start + groups] for beam in step.pool]
            for start in range(0, len(trace), groups)
        ]
    else:
        kept = [list(dict.fromkeys(draw.ids[:length] for draw in trace[0])) for length in range(1, STEPS + 1)]
    rows = max(map(len, kept))
    figure, axes = plt.subplots(figsize=(8.2, 0.42 * rows + 0.5), layout="constrained")
    spots: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, (rows - 1) / 2)}
    for step, texts in enumerate(kept, 1):
        for rank, ids in enumerate(texts):
            spots.setdefault(tuple(ids), (float(step), rank + (rows - len(texts)) / 2))
    for ids, spot in spots.items():
        chosen = tuple(best.ids[: len(ids)]) == ids
        parent = spots.get(ids[:-1])
        if ids and parent is not None:
            axes.plot(
                *zip(parent, spot, strict=True), color=RED if chosen else GREY, zorder=1, linewidth=2 if chosen else 1
            )
        label = model.tokenizer.decode(ids[-1:]).strip() or "⏎" if ids else "… " + entry.prompt[-5:]
        axes.text(
            *spot,
            label,
            ha="center",
            va="center",
            fontsize=8.5,
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": "#fdeae4" if chosen else "white",
                "edgecolor": RED if chosen else GREY,
            },
        )
    axes.set(xlim=(-0.5, STEPS + 0.45), ylim=(rows - 0.45, -0.55))
    axes.axis("off")
    figure.savefig(path)
    plt.close(figure)


def circles(model: GPT2, entry: Documentation, path: Path) -> None:
    """The tokens of a text that goes round in circles: what was written, what ended it in red, what would follow."""
    options = asked(model, entry)
    ended = model.generate(entry.prompt, max_new_tokens=LENGTH, **options)
    whole = model.generate(entry.prompt, max_new_tokens=LENGTH)
    size = next(n for n in range(1, options["max_pattern_size"] + 1) if ended.ids[-n:] == ended.ids[-2 * n : -n])
    first = len(ended.ids) - size * options["min_count"]
    figure, axes = plt.subplots(figsize=(8.2, 0.9), layout="constrained")
    for place, text in enumerate(model.tokenizer.tokens(whole.ids)):
        written, repeats = place < len(ended.ids), first <= place < len(ended.ids)
        axes.text(
            place,
            0,
            text.strip() or "⏎",
            ha="center",
            va="center",
            color=INK if written else GREY,
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": "#fdeae4" if repeats else "white",
                "edgecolor": RED if repeats else GREY,
            },
        )
    axes.axvline(len(ended.ids) - 0.5, color=RED)
    axes.text(len(ended.ids) - 0.4, 0.75, "it ends here", color=RED, fontsize=7, va="center")
    axes.set(xlim=(-0.7, LENGTH - 0.3), ylim=(-0.8, 1))
    axes.axis("off")
    figure.savefig(path)
    plt.close(figure)


def section(model: GPT2, entry: Documentation, picture: Picture | None) -> str:
    """One entry as Markdown, its picture drawn."""
    name = re.sub(r"[^a-z0-9]+", "-", entry.title.lower()).strip("-")
    parts = [f"### {entry.title}\n", f"{entry.what}\n", f"$${entry.formula}$$\n"]
    if picture is not None and entry.picture:
        picture(model, entry, PAGE.parent / "figures" / f"{name}.png")
        parts.append(f"![{entry.title}](figures/{name}.png)\n")
    source = f"**Source:** {entry.source}. " if entry.source else ""
    parts += [f"{source}**When:** {entry.when}\n", calls(model, entry)]
    written = model.generate(entry.prompt, max_new_tokens=LENGTH, **asked(model, entry))
    parts.append(f"> {entry.prompt}**{' '.join(written.text.split())}**\n".replace("**", " **", 1))
    return "\n".join(parts)


def picture_of(method: Method, entry: Documentation) -> Picture | None:
    """Return the function that draws an entry: a beam search as a tree, a processor as distributions."""
    if method.make is not None or (method.streams and entry.random):
        return before_and_after
    if method.stop is not None:
        return circles
    return tree if "num_beams" in entry.example else None


def sections(model: GPT2, some: Sequence[Method]) -> list[str]:
    """The entries of some methods."""
    return [section(model, entry, picture_of(method, entry)) for method in some for entry in method.documentation]


def briefly(kind: str, some: Sequence[Method]) -> list[str]:
    """A line for each of the methods that have no entry: the option that asks for it, and that option's help."""
    others = [method.askers[0] for method in some if not method.documentation]
    lines = [f"- `{name}`: {methods.option(name).help}" for name in others]
    return [f"### Other {kind}, in a line each\n", "\n".join([*lines, ""])] if others else []


def divided() -> tuple[list[Method], list[Method], list[Method]]:
    """Warpers, processors and strategies. The list ends with the plainest strategy; the page begins with it."""
    processors = [method for method in methods.every() if method.make is not None]
    warpers = [method for method in processors if method.only == "sampling"]
    others = [method for method in methods.every() if method.stop or (method.make and method.only != "sampling")]
    return warpers, others, [method for method in reversed(methods.every()) if method.run is not None]


def kept_section(old: str, name: str) -> str:
    """Return what was written by hand between the markers of a section."""
    match = re.search(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", old, re.DOTALL)
    body = match.group(1) if match else ""
    return f"<!-- {name} -->\n{body}<!-- end of {name} -->\n"


INTRO = """# Every way to decode, with its picture

This page shows {count} options and strategies on the bundled model. For each there is a picture of its effect on the
next token's distribution (grey: the model's; blue: after it) or, for a search, of what it kept at each step (the best
text in red), its formula, its source, when to use it, and the call that reproduces it. Options have transformers'
names and act in its order; `order=[…]` and `profile="llama.cpp"` change the order. [dialects.md](dialects.md) shows
where engines differ, and [cost.md](cost.md) what each option costs at 50,257 tokens. `python
scripts/build_decoding_page.py` writes this page.

To see the effects on a prompt of your own, step by step, use `gpt2-np generate … --explain`.

```python
from gpt2_np import GPT2

model = GPT2.from_pretrained()
```
"""


def main() -> None:
    model = GPT2.from_pretrained()
    (PAGE.parent / "figures").mkdir(parents=True, exist_ok=True)
    old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    warpers, processors, strategies = divided()
    parts = [
        INTRO.format(count=sum(len(method.documentation) for method in methods.every())),
        "## Warpers: which tokens may be drawn\n",
        *sections(model, warpers),
        *briefly("warpers", warpers),
        "## Processors: rules and penalties that depend on the text so far\n",
        *sections(model, processors),
        *briefly("processors", processors),
        "## Strategies: greedy decoding, sampling and searches\n",
        *sections(model, strategies),
        *briefly("strategies", strategies),
        "## Constraints\n",
        kept_section(old, "constraints"),
        "## Speculation\n",
        kept_section(old, "speculation"),
    ]
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    size = sum(path.stat().st_size for path in (PAGE.parent / "figures").iterdir())
    print(f"{PAGE}: {size / 1024:.0f} KiB of pictures")


if __name__ == "__main__":
    main()
