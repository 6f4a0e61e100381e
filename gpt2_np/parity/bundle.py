"""Golden bundles: everything that is needed to check another implementation of GPT-2, or of its decoders, without this
one.

A bundle is a folder:

``bundle.json``             format and version, the model's configuration, prompts as ids, the order of operations,
                            and decoded tokens for each strategy and seed
``activations.safetensors`` the truths, float64: ``PROMPT/NAME`` for every activation and ``PROMPT/logits``, and
                            ``PROMPT/stepwise`` for logits computed one id at a time, from a cache
``decoders.json``           conformance vectors: scores and ids in, scores out, for every processor; beams on a table
``texts.json``              hard texts with their ids, where the model has a tokenizer
``training.*``              where asked for: gradients and steps of an optimizer (see `training`)
``model/``                  the weights, where the model is small enough to come along

The implementation under test writes a folder of the same shape: ``activations.safetensors`` with any of the names
(float32 will do) and ``answers.json`` with "tokens", "decoders", "beams" and "texts" in the bundle's order, null for a
case that is left out. JSON has no infinity, so −inf is written as null. `check` judges it and names the first operation
that goes wrong.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ..model.taps import ON_REQUEST, points
from ..system.files import JSONObject, read_json, write_whole
from ..text.gpt2 import GPT2
from ..weights.load import files, floats
from . import answers, texts, training, vectors
from .answers import DECODERS, LEFT_OUT, TEXTS
from .checks import Check

Array = np.ndarray
FORMAT, VERSION = "gpt2_np parity bundle", 1
TOLERANCE = 3e-5  # of the truth's largest entry: float32 sums of any order stay well within
SMALL = 2 << 20  # bytes of weights that a bundle takes along
STRATEGIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("greedy", {}),
    ("beam search", {"num_beams": 3}),
    ("sampling", {"do_sample": True, "seed": 1}),
    ("sampling, temperature 0.7, top-k 9", {"do_sample": True, "seed": 2, "temperature": 0.7, "top_k": 9}),
    ("sampling, top-p 0.8", {"do_sample": True, "seed": 3, "top_p": 0.8}),
)


def export(
    folder: Path, name: str, prompts: Sequence[Sequence[int]], tokens: int = 20, *, with_training: bool = False
) -> None:
    """Write a bundle of the model called `name` for prompts of ids. The truths are computed in float64.

    ``bundle.json`` comes last: what a full disk or a kill cuts short is no bundle, and `check` says so.

    With `with_training` it holds a batch's gradients and ten steps of AdamW besides (`training`).
    """
    exact = GPT2.from_pretrained(name, dtype="float64", backend="numpy")
    folder.mkdir(parents=True, exist_ok=True)
    # What makes a folder a bundle is written last; what another model's bundle may have had goes.
    for last in (folder / "bundle.json", folder / training.ABOUT, folder / TEXTS):
        last.unlink(missing_ok=True)
    tensors: dict[str, Array] = {}
    decoded = []
    for number, ids in enumerate(prompts):
        tensors |= {f"{number}/{key}": value for key, value in activations(exact, ids).items()}
        most = min(tokens, exact.config.n_positions - len(ids))
        for strategy, options in STRATEGIES:
            out = exact.generate(list(ids), max_new_tokens=most, **options)
            decoded.append(
                {"strategy": strategy, "options": options, "prompt": number, "max_new_tokens": most, "ids": out.ids}
            )
    write_whole(folder / "activations.safetensors", save(tensors))
    order = [*points(exact.config), "logits", "stepwise"]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(exact.config),
        "prompts": [list(map(int, ids)) for ids in prompts],
        "order": order,
        "tolerance": TOLERANCE,
        "tokens": decoded,
    }
    write_whole(folder / DECODERS, vectors.written(vectors.make()).encode())
    if exact.has_tokenizer:
        write_texts(folder, exact)
    if with_training:
        training.export(folder, exact)
    assert exact.folder is not None
    if sum(path.stat().st_size for path in files(exact.folder)) <= SMALL:
        (folder / "model").mkdir(exist_ok=True)
        for path in [exact.folder / "config.json", *files(exact.folder)]:
            write_whole(folder / "model" / path.name, path.read_bytes())
    write_whole(folder / "bundle.json", (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())


def write_texts(folder: Path, model: GPT2) -> None:
    """Add the vectors of a model's tokenizer to a bundle."""
    write_whole(folder / TEXTS, texts.written(texts.make(model)).encode())


def activations(model: GPT2, ids: Sequence[int]) -> dict[str, Array]:
    """Every activation of one prompt by name, its logits, and the logits computed one id at a time."""
    logits, cache = model.run_with_cache([list(ids)])
    session = model.start()
    stepwise = np.stack([session.feed([[token]])[0] for token in ids])
    return {**{name: np.ascontiguousarray(cache[name]) for name in cache}, "logits": logits, "stepwise": stepwise[None]}


def answer(folder: Path, bundle: Path, model: GPT2) -> None:
    """Write the answers that an implementation under test writes, as an example to follow."""
    about = read(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Array] = {}
    for number, ids in enumerate(about["prompts"]):
        tensors |= {f"{number}/{key}": value for key, value in activations(model, ids).items()}
    write_whole(folder / "activations.safetensors", save(tensors))
    tokens = [
        model.generate(about["prompts"][case["prompt"]], max_new_tokens=case["max_new_tokens"], **case["options"]).ids
        for case in about["tokens"]
    ]
    given = {"tokens": tokens, **vectors.answer(read_json(bundle / DECODERS))}
    if (bundle / TEXTS).is_file() and model.has_tokenizer:
        given["texts"] = texts.answer(read_json(bundle / TEXTS), model)
    write_whole(folder / answers.NAME, (json.dumps(given, allow_nan=False) + "\n").encode())


def read(bundle: Path) -> JSONObject:
    """``bundle.json``; ``ValueError`` when it is none, or of another version."""
    path = bundle / "bundle.json"
    if not path.is_file():
        raise FileNotFoundError(f"{bundle} holds no bundle.json")
    about = read_json(path)
    if not isinstance(about, dict) or "format" not in about or "version" not in about:
        raise ValueError(f"{path} is not a parity bundle")
    kind, version = about["format"], about["version"]
    if (kind, version) != (FORMAT, VERSION):
        raise ValueError(f"{path} must be version {VERSION} of {FORMAT!r}, got version {version!r} of {kind!r}")
    for key in ("prompts", "order", "tokens"):
        if not isinstance(about.get(key), list):
            raise ValueError(f"{path}: {key} must be a list, got {about.get(key)!r}")
    tolerance = about.get("tolerance")
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
        raise ValueError(f"{path}: tolerance must be between 0 and 1, got {tolerance!r}")
    loaded: JSONObject = about
    return loaded


def tensors_of(folder: Path) -> dict[str, Array]:
    """``activations.safetensors`` of a folder; ``ValueError`` when it is damaged, or of numbers that aren't floats."""
    path = folder / "activations.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no activations.safetensors")
    return floats(path)


def truths(bundle: Path, about: JSONObject) -> dict[str, Array]:
    """The truth of every tensor by name, in the bundle's order. ``ValueError`` names one that is missing or is NaN.

    What is captured `ON_REQUEST` only (``attn.result``) is in the order but not in the file, for its size.
    """
    stored, found = tensors_of(bundle), {}
    for number in range(len(about["prompts"])):
        for name in about["order"]:
            key = f"{number}/{name}"
            if key in stored:
                found[key] = stored[key]
            elif not str(name).endswith(ON_REQUEST):
                raise ValueError(f"{bundle / 'activations.safetensors'} lacks {key}, which bundle.json's order names")
    answers.refuse_nan(bundle / "activations.safetensors", found)
    return found


def check(bundle: Path, theirs: Path, *, tolerance: float | None = None) -> Iterator[Check]:
    """Judge another implementation's folder: the forward pass in its order, decoders and tokenizer, then training.

    A `tolerance` (a share of a tensor's largest entry) takes the place of the bundle's, and of the bounds of scores
    that are narrower: for an implementation in float16. What they left out has the verdict "left out".
    """
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance}")
    trained = (bundle / training.ABOUT).is_file() and (theirs / training.TENSORS).is_file()
    if trained and not (theirs / "activations.safetensors").is_file():
        yield from training.check(bundle, theirs, tolerance=tolerance)
        return
    about = read(bundle)
    truth, given = truths(bundle, about), tensors_of(theirs)
    known = [name for name in truth if name in given]
    if not known:
        raise ValueError(f"{theirs} shares no tensor with the bundle; names are like '0/blocks.0.attn.pattern'")
    wrong = next((name for name in known if given[name].shape != truth[name].shape), None)
    if wrong is not None:
        shapes = f"must be {truth[wrong].shape}, got {given[wrong].shape}"
        raise ValueError(f"{theirs}: {wrong} {shapes}; is it of this model?")
    for name in truth:
        if name in given:
            yield answers.compare(name, given[name], truth[name], tolerance or float(about["tolerance"]))
        else:
            yield Check(name, LEFT_OUT)
    yield from answers.check(bundle, about, theirs, tolerance or 0.0)
    if trained:
        yield from training.check(bundle, theirs, tolerance=tolerance)
