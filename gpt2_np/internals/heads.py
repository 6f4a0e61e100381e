"""Scores for the kinds of attention head that every transformer has.

Olsson et al. 2022, "In-context Learning and Induction Heads"; detection patterns as in TransformerLens's
``head_detector``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..session.model import Model

Array = np.ndarray
KINDS = ("previous_token", "duplicate_token", "induction")
MEASURES = ("mean", "mul", "abs")


def repeated_random_ids(vocabulary: int, length: int, rows: int = 8, seed: int = 0, start: int | None = None) -> Array:
    """Return random ids followed by the same ids: (rows, 2·length), or one more if each row begins with the id `start`.

    Nothing but the repetition can be predicted in them, so what a model does with the second half is induction.
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    half = np.random.default_rng(seed).integers(0, vocabulary, (rows, length))
    whole = np.concatenate([half, half], axis=1)
    return whole if start is None else np.insert(whole, 0, start, axis=1)


def repeated(text: Sequence[int], start: int | None = None) -> Array:
    """Return one text of ids twice: (1, 2·T), or one more with a first id `start`.

    Gentler than random ids: small models recognise copies in the kind of text they were trained on first.
    """
    if len(text) < 2:
        raise ValueError(f"a text to repeat needs at least 2 ids, got {len(text)}")
    first = [] if start is None else [start]
    return np.array([[*first, *text, *text]])


def detection_pattern(kind: str, ids: Sequence[int] | Array) -> Array:
    """Return where a perfect head of a kind would look: (T,) ids → (T, T), 1 at [query, key], 0 elsewhere.

    "previous_token": the one before. "duplicate_token": earlier copies of the same token. "induction": what came
    after earlier copies of it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    ids = np.asarray(ids)
    T = len(ids)
    if kind == "previous_token":
        return np.eye(T, k=-1)
    duplicates = np.tril(ids[:, None] == ids, -1).astype(float)
    if kind == "duplicate_token":
        return duplicates
    return np.tril(np.pad(duplicates, [(0, 0), (1, 0)])[:, :T])


def head_scores(
    model: Model,
    ids: Array,
    kind: str,
    *,
    measure: str = "mean",
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
) -> Array:
    """Return how much each head is of a kind, on texts (n, T) or one (T,): (L, H).

    `measure` "mean": the attention that goes where a perfect head looks, averaged over the positions at which such a
    head has anywhere to look; 1 is perfect. "mul" and "abs" are TransformerLens's: the share of all attention
    that goes there, and 1 − the mean distance from the perfect pattern.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.internals.heads import head_scores, repeated_random_ids
        >>> head_scores(model, repeated_random_ids(4096, 12, rows=2), "induction").shape
        (8, 10)
    """
    if measure not in MEASURES:
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    texts = model.check_ids(ids)
    wanted = np.stack([detection_pattern(kind, text) for text in texts])[:, None]
    _, cache = model.run_with_cache(texts, "blocks.*.attn.pattern")
    rows = []
    for layer in range(model.config.n_layer):
        pattern = cache["pattern", layer].astype(np.float64)
        if exclude_bos:
            pattern[..., 0] = 0
        if exclude_current_token:
            pattern = pattern * (1 - np.eye(pattern.shape[-1]))
        rows.append(_score(pattern, wanted, measure, exclude_bos, exclude_current_token))
    return np.stack(rows)


def all_head_scores(
    model: Model, ids: Array | None = None, *, length: int = 50, rows: int = 4, seed: int = 0
) -> dict[str, Array]:
    """Return every kind's (L, H) "mean" scores on texts (n, T), or on repeated random sequences that fit the
    context.
    """
    if ids is None:
        start = model.config.bos_token_id
        start = start if start is not None and 0 <= start < model.config.vocab_size else None
        length = min(length, (model.config.n_positions - 1) // 2)
        ids = repeated_random_ids(model.config.vocab_size, length, rows, seed, start)
    return {kind: head_scores(model, ids, kind) for kind in KINDS}


def _score(pattern: Array, wanted: Array, measure: str, exclude_bos: bool, exclude_current: bool) -> Array:
    hits = (pattern * wanted).sum(-1)
    if measure == "mean":
        anywhere = np.broadcast_to(wanted.any(-1), hits.shape)
        return hits.sum((0, 2)) / np.maximum(anywhere.sum((0, 2)), 1)
    if measure == "mul":
        return (hits.sum(-1) / pattern.sum((-1, -2))).mean(0)
    distance = np.abs(pattern - wanted)
    if exclude_bos:
        distance[..., 0] = 0
    if exclude_current:
        distance = distance * (1 - np.eye(distance.shape[-1]))
    return (1 - distance.sum((-1, -2)) / distance.shape[-1]).mean(0)
