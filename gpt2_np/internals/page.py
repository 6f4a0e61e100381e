"""One prompt on one page: a self-contained HTML file with attention, logit lens, predictions and attributions."""

from __future__ import annotations

import base64
import html
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decoders.base.ranking import highest

from ..display import framed, in_bytes
from ..gradients import readings
from ..model.activations import ActivationCache
from ..model.params import as_array
from ..model.taps import no_tap
from ..text.gpt2 import GPT2
from . import page_graph
from .dictionaries import Dashboard, Dictionary, fires, logit_effects
from .lens import nearest, stream_names
from .logits import likeliest

Array = np.ndarray
MOST_TOKENS = 512
MOST_OWED = 64  # tokens of a prompt of which every position is asked what it owes to those before
FEATURES, WORDS = 8, 8  # of a dictionary: how many features of each token, how many words of each feature


class Page(str):
    """A page as text. A notebook shows it in an inline frame that runs the page's scripts and reaches nothing else."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Page({in_bytes(len(self))}; write_text(page, encoding='utf-8') keeps it)"

    def _repr_html_(self) -> str:
        return framed(self, title="One prompt, looked at from inside")


def inspect_page(
    model: GPT2,
    prompt: str | Sequence[int],
    *,
    top: int = 12,
    title: str | None = None,
    prepend_bos: bool = False,
    dictionary: Dictionary | None = None,
    dashboards: Sequence[Dashboard] = (),
    transcoders: Sequence[Dictionary] = (),
    question: tuple[int, int] | None = None,
    last_only: bool = False,
) -> Page:
    """The page for a prompt, as HTML that needs no network and no other file: a str, which a notebook shows in a frame.

    For every position it shows the `top` likeliest next tokens; every head's attention; the logit lens; what each
    head and MLP added to the logit of the likeliest token, and of the one that follows; and what each token of the
    prompt did for the likeliest one against the next (of a prompt of more than `MOST_OWED` tokens at the last position
    only, and not for a model with edits). With a `dictionary` it shows the features that fire at each token, where else
    in the prompt they do, the words that they raise and lower, and of those in `dashboards` where in a corpus they fire
    most. With `transcoders`, one a layer, it draws the attribution graph of the logit difference after the last token
    between the two tokens of `question`, or the two likeliest. With `last_only` what the tokens did is worked out at
    the last position only, as of a long prompt: at all positions it is most of the work. ``ValueError`` for a prompt of
    more than `MOST_TOKENS` tokens (the page would weigh too much), or `top` below 1.
    """
    ids = model.prompt_ids(model.to_ids(prompt, prepend_bos=prepend_bos))
    if len(ids) > MOST_TOKENS:
        raise ValueError(f"a page holds at most {MOST_TOKENS} tokens, got {len(ids)}")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    names = ["embed", "pos_embed", "*.attn.pattern", "*.attn.z", "*_out", "ln_final.scale", "unembed"]
    read = readings.names_read(model.config) if differentiable(model) else []
    _, cache = model.run_with_cache(ids, [*names, *stream_names(model), *read])
    text = model.tokenizer.decode(ids)
    data = page_data(model, ids, cache, top, last_only=last_only)
    data["features"] = None if dictionary is None else _features(model, ids, dictionary, dashboards)
    if transcoders:
        first, second, *_ = highest(cache["unembed"][0, -1], 2).tolist()
        asked = question or (first, second)
        data["graph"] = page_graph.panel(model, transcoders, ids, asked, lambda some: words(model, some))
    data["about"] = (
        f"{len(ids)} tokens, {model.config.n_layer} layers of {model.config.n_head} heads, "
        f"{model.config.n_embd} wide" + (f": {model.folder.name}" if model.folder else "")
    )
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    template = template.replace("@GRAPH@", page_graph.fragment() if transcoders else "")
    # Within a script element only "<" could end it; JSON can spell it out. The marks are replaced in one pass each,
    # the title first, so that nothing a prompt says is taken for a mark.
    shown = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    before, after = template.split("@DATA@")
    return Page(before.replace("@TITLE@", html.escape(title or f"gpt2-np: {text[:60]}")) + shown + after)


def page_data(
    model: GPT2, ids: Sequence[int], cache: ActivationCache, top: int, *, last_only: bool = False
) -> dict[str, object]:
    """Return the content of the page as JSON data. Attention is bytes (255 is 1), base64: layer, head, query, key.

    Keys after the query are left out.
    """
    tokens = [shown(token) for token in model.tokenizer.tokens(ids)]
    queries, keys = np.tril_indices(len(ids))
    attention = np.empty((model.config.n_layer, model.config.n_head, len(queries)), np.uint8)
    for layer, rows in enumerate(attention):
        rows[:] = np.rint(cache["pattern", layer][0, :, queries, keys].T * 255)
    best, p = likeliest(cache["unembed"][0], max(2, top))

    def named(candidates: Array, p: Array) -> list[list[object]]:
        """The words of each row and their probabilities, (n, k) twice."""
        words, chances = model.tokenizer.tokens(candidates.reshape(-1).tolist()), p.astype(np.float64).round(4)
        pairs: list[object] = [
            [shown(word), chance] for word, chance in zip(words, chances.reshape(-1).tolist(), strict=True)
        ]
        k = candidates.shape[1]
        return [pairs[start : start + k] for start in range(0, len(pairs), k)]

    labels, looked, chances = nearest(model, cache, min(5, top))
    T = len(ids)
    return {
        "ids": list(ids),
        "tokens": tokens,
        "layers": model.config.n_layer,
        "heads": model.config.n_head,
        "attention": base64.b64encode(zlib.compress(attention.tobytes())).decode("ascii"),
        "next": named(best[:, :top], p[:, :top]),
        "labels": labels,
        "lens": [named(*row) for row in zip(looked, chances, strict=True)],
        "attribution": _attributions(
            model, cache, {"best": (best[:, 0], T), "actual": (np.array([*ids[1:], ids[-1]]), T - 1)}
        ),
        "owed": _owed(model, cache, best[:, :2], last_only) if differentiable(model) else {},
    }


def _features(
    model: GPT2, ids: Sequence[int], dictionary: Dictionary, dashboards: Sequence[Dashboard]
) -> dict[str, object]:
    """Return the features that fire most at each token, and for each of these where it fires and what it does."""
    found = fires(model, dictionary, ids)
    at = [found.at(position, FEATURES) for position in range(len(ids))]
    used = sorted({int(number) for numbers, _ in at for number in numbers})
    try:
        effects = logit_effects(model, dictionary, used)
    except ValueError:  # of an activation that isn't added to the stream
        effects = np.zeros((len(used), 0))
    boards = {board.feature: board for board in dashboards}

    def examples(number: int) -> list[dict[str, object]]:
        board = boards.get(number)
        return [
            {
                "value": round(one.value, 2),
                "at": one.position - one.start,
                "tokens": [shown(word) for word in model.tokenizer.tokens(one.ids)],
                "values": [round(value, 2) for value in one.values],
            }
            for one in ([] if board is None else board.examples)
        ]

    return {
        "hook": dictionary.hook_name,
        "missed": np.round(found.missed.astype(np.float64), 4).tolist(),
        "at": [[[int(number), round(float(value), 3)] for number, value in zip(*some, strict=True)] for some in at],
        "about": {
            number: {
                "name": dictionary.names.get(number, ""),
                "values": np.round(found.features[:, number].astype(np.float64), 3).tolist(),
                "raises": words(model, highest(row, WORDS).tolist()),
                "lowers": words(model, highest(-row, WORDS).tolist()),
                "density": None if number not in boards else round(boards[number].density, 6),
                "examples": examples(number),
            }
            for number, row in zip(used, effects, strict=True)
        },
    }


def differentiable(model: GPT2) -> bool:
    """Tell whether a page can say what tokens did for one answer against another."""
    return model.tap is no_tap and model.backend != "torch" and model.config.vocab_size > 1


def _owed(model: GPT2, cache: ActivationCache, best: Array, last_only: bool) -> dict[int, dict[str, object]]:
    """By position: the two likeliest tokens, and input × gradient of each token so far for the one, not the other."""
    T = len(best)
    places = list(range(T)) if T <= MOST_OWED and not last_only else [T - 1]
    directions = cache.directions(best[places, 0]) - cache.directions(best[places, 1])
    gradients = readings.of_embeddings(cache, places, directions)
    scores = (cache["embed"][:, : gradients.shape[1]] * gradients).sum(axis=-1, dtype=np.float64)
    owed: dict[int, dict[str, object]] = {}
    for at, row in zip(places, scores, strict=True):
        first, second = model.tokenizer.tokens(best[at].tolist())
        owed[at] = {"token": shown(first), "other": shown(second), "scores": np.round(row[: at + 1], 3).tolist()}
    return owed


def _attributions(
    model: GPT2, cache: ActivationCache, asked: dict[str, tuple[Array, int]]
) -> dict[str, dict[str, object]]:
    """For each kind of target, what heads, MLPs, embeddings and biases added to its logit, at the first positions.

    What a head adds to a logit is its z times a vector: the target's direction, taken back through the final norm with
    the run's scale and through the head's output map. So no head's result, as wide as the stream, is made.
    """
    heads: dict[str, list[Array]] = {kind: [] for kind in asked}
    read = {}
    for kind, (targets, _) in asked.items():
        gained = cache.directions(targets) * model.params.ln_f.weight
        read[kind] = (gained - gained.mean(axis=-1, keepdims=True)) / cache["ln_final.scale"][0]
    for layer in range(model.config.n_layer):
        weight, z = as_array(model.params.h[layer].attn.c_proj.weight), cache["z", layer][0]
        for kind in asked:
            vectors = (read[kind] @ weight.T).reshape(z.shape)
            heads[kind].append((z * vectors).sum(axis=-1).T)
    return {
        kind: _attribution(model, cache, np.stack(heads[kind]), targets, count)
        for kind, (targets, count) in asked.items()
    }


def _attribution(model: GPT2, cache: ActivationCache, heads: Array, targets: Array, count: int) -> dict[str, object]:
    """For each position what heads (L, H, T), MLPs, embeddings and biases added to the logit of its target."""
    row = targets[None]
    mlps = cache.logit_attrs(cache.decompose_resid(mode="mlp", incl_embeds=False)[0], row)[:, 0]
    embed = cache.logit_attrs(np.stack([cache["embed"], cache["pos_embed"]]), row)[:, 0].sum(0)
    logit = np.take_along_axis(cache["unembed"][0], targets[:, None], -1)[:, 0]
    bias = logit - heads.sum((0, 1)) - mlps.sum(0) - embed

    def rounded(array: Array) -> object:
        return np.round(array.astype(np.float64), 3).tolist()

    values = [
        {
            "heads": rounded(heads[:, :, at]),
            "mlps": rounded(mlps[:, at]),
            "embed": rounded(embed[at]),
            "bias": rounded(bias[at]),
            "logit": rounded(logit[at]),
        }
        for at in range(count)
    ]
    return {"tokens": [shown(word) for word in model.tokenizer.tokens(targets.tolist())], "values": values}


def words(model: GPT2, ids: Sequence[int]) -> list[str]:
    """Tokens as a page shows them."""
    return [shown(word) for word in model.tokenizer.tokens(list(ids))]


def shown(token: str) -> str:
    """Return a token as a page shows it: line ends as ↵, so that every token has some width."""
    return token.replace("\n", "↵").replace("\t", "⇥") or "∅"
