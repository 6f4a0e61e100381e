"""Golden bundles: all that is needed to judge another implementation of GPT-2, or of its decoders, without this one.

A bundle is a folder:

``bundle.json``             format and version, the model's configuration, prompts as ids, the order of operations,
                            and decoded tokens for each strategy and seed
``activations.safetensors`` the truths, float64: ``PROMPT/NAME`` for every activation and ``PROMPT/logits``, and
                            ``PROMPT/stepwise`` for logits computed one id at a time, from a cache
``decoders.json``           conformance vectors: scores and ids in, scores out, for every processor; beams on a table
``training.*``              where asked for: gradients and steps of an optimizer (see `training`)
``model/``                  the weights, where the model is small enough to come along

The implementation under test writes a folder of the same shape: ``activations.safetensors`` with any of the names
(float32 will do) and ``answers.json`` with "tokens", "decoders" and "beams" in the bundle's order. JSON has no
infinity, so −inf is written as null. `check` judges it and names the first operation that goes wrong.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..model.taps import points
from ..system.files import JSONObject, read_json, write_whole
from ..text.gpt2 import GPT2
from ..weights.load import files
from . import training, vectors
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
    for last in (folder / "bundle.json", folder / training.ABOUT):  # what makes a folder a bundle is written last
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
    write_whole(folder / "decoders.json", vectors.written(vectors.make()).encode())
    if with_training:
        training.export(folder, exact)
    assert exact.folder is not None
    if sum(path.stat().st_size for path in files(exact.folder)) <= SMALL:
        (folder / "model").mkdir(exist_ok=True)
        for path in [exact.folder / "config.json", *files(exact.folder)]:
            write_whole(folder / "model" / path.name, path.read_bytes())
    write_whole(folder / "bundle.json", (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())


def activations(model: GPT2, ids: Sequence[int]) -> dict[str, Array]:
    """Every activation of one prompt by name, its logits, and the logits computed one id at a time."""
    logits, cache = model.run_with_cache([list(ids)])
    session = model.start()
    stepwise = np.stack([session.feed([[token]])[0] for token in ids])
    return {**{name: np.ascontiguousarray(cache[name]) for name in cache}, "logits": logits, "stepwise": stepwise[None]}


def answer(folder: Path, bundle: Path, model: GPT2) -> None:
    """What an implementation under test writes, written by ours: an example to follow."""
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
    decoders = read_json(bundle / "decoders.json")
    answers = {"tokens": tokens, **vectors.answer(decoders)}
    write_whole(folder / "answers.json", (json.dumps(answers, allow_nan=False) + "\n").encode())


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
    """``activations.safetensors`` of a folder; ``ValueError`` when it is damaged."""
    path = folder / "activations.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no activations.safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a sound safetensors file: {error}") from None


def check(bundle: Path, theirs: Path) -> Iterator[Check]:
    """Judge another implementation's folder: the forward pass in its order, the decoders, then training."""
    trained = (bundle / training.ABOUT).is_file() and (theirs / training.TENSORS).is_file()
    if trained and not (theirs / "activations.safetensors").is_file():
        yield from training.check(bundle, theirs)
        return
    about, truth, given = read(bundle), tensors_of(bundle), tensors_of(theirs)
    known = [name for name in given if name in truth]
    if not known:
        raise ValueError(f"{theirs} shares no tensor with the bundle; names are like '0/blocks.0.attn.pattern'")
    wrong = next((name for name in known if given[name].shape != truth[name].shape), None)
    if wrong is not None:
        shapes = f"must be {truth[wrong].shape}, got {given[wrong].shape}"
        raise ValueError(f"{theirs}: {wrong} {shapes}; is it of this model?")
    for number in range(len(about["prompts"])):
        for name in about["order"]:
            key = f"{number}/{name}"
            if key in given:
                yield compare(key, given[key], truth[key], float(about["tolerance"]))
    answers = theirs / "answers.json"
    if answers.is_file():
        answered, decoders = read_json(answers), read_json(bundle / "decoders.json")
        lists = ("processors", "beams")
        if not isinstance(decoders, dict) or not all(isinstance(decoders.get(key), list) for key in lists):
            raise ValueError(f"{bundle / 'decoders.json'} must hold lists of processors and beams")
        if not isinstance(answered, dict):
            raise ValueError(f"{answers} must hold a JSON object, got {type(answered).__name__}")
        questions = {"tokens": about["tokens"], "decoders": decoders["processors"], "beams": decoders["beams"]}
        for key, asked in questions.items():
            found = answered.get(key, asked)
            if not isinstance(found, list) or len(found) != len(asked):
                count = len(found) if isinstance(found, list) else repr(found)
                raise ValueError(
                    f"{answers}: {key} must have one answer to each of the bundle's {len(asked)}, in its "
                    f"order, or be left out; got {count}"
                )
        try:
            yield from judge(about, decoders, answered)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"{answers} can't be read: {type(error).__name__}: {error}") from None
    if trained:
        yield from training.check(bundle, theirs)


def compare(name: str, theirs: Array, truth: Array, tolerance: float) -> Check:
    """One tensor against the truth; both may hold −inf, in the same places."""
    if theirs.shape != truth.shape:
        raise ValueError(f"{name} must have the shape {truth.shape}, got {theirs.shape}")
    finite = np.isfinite(truth)
    same_places = np.array_equal(finite, np.isfinite(theirs))
    gap = np.where(finite, np.abs(np.where(finite, theirs, 0) - np.where(finite, truth, 0)), 0)
    place = np.unravel_index(np.argmax(gap), gap.shape)
    largest, scale = float(gap[place]), float(np.abs(truth[finite]).max(initial=1.0))
    good = same_places and largest <= tolerance * scale
    return Check(name, "same" if good else "mismatch", largest, str([int(index) for index in place]))


def close(theirs: Array, truth: Array) -> tuple[bool, float, int]:
    """Whether (V,) scores are right, each by itself to 1e-5; the largest difference, in proportion, and its place."""
    if theirs.shape != truth.shape:
        raise ValueError(f"scores must be {len(truth)} numbers, got {len(theirs)}")
    finite = np.isfinite(truth)
    same_places = np.array_equal(finite, np.isfinite(theirs))
    both = finite & np.isfinite(theirs)
    gap = np.zeros(len(truth))
    gap[both] = np.abs(theirs[both] - truth[both]) / np.maximum(1, np.abs(truth[both]))
    place = int(gap.argmax())
    return same_places and bool(gap[place] <= 1e-5), float(gap[place]), place


def judge(about: JSONObject, decoders: JSONObject, answers: JSONObject) -> Iterator[Check]:
    """Tokens, processors and beams."""
    for case, ids in zip(about["tokens"], answers.get("tokens", []), strict=False):
        same = case["ids"] == ids
        yield Check(
            f"tokens: {case['strategy']}, prompt {case['prompt']}",
            "same" if same else "mismatch",
            note="" if same else f"{ids} where {case['ids']} was expected",
        )
    for case, scores in zip(decoders["processors"], answers.get("decoders", []), strict=False):
        if scores is None:  # a processor that they lack
            continue
        good, far, place = close(vectors.numbers(scores), vectors.numbers(case["out"]))
        note = "" if good else f"{scores} where {case['out']} was expected for arguments {case['arguments']}"
        yield Check(f"processor: {case['name']}", "same" if good else "mismatch", far, f"[{place}]", note=note)
    for case, found in zip(decoders["beams"], answers.get("beams", []), strict=False):
        same = [one["ids"] for one in found] == [one["ids"] for one in case["out"]]
        far = max((abs(a["score"] - b["score"]) for a, b in zip(found, case["out"], strict=False)), default=0.0)
        good = same and far <= 1e-4
        yield Check(
            f"beams: {case['name']}",
            "same" if good else "mismatch",
            far,
            note="" if good else f"{found} where {case['out']} was expected; see its trace",
        )
