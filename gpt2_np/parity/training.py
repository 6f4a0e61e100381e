"""The training part of a golden bundle: one batch's loss and gradients, and ten steps of AdamW, in float64.

    training.json          the batch, the order of tensors, the optimizer's settings, tolerances
    training.safetensors   the truths by name:
        loss                    mean cross-entropy (nats) over the batch's labels: (1,)
        rows/logits             the logits of its rows, 0 after a row's end: (B, T, V)
        rows/cached             those after each row's last id, the ids before it being in a cache: (B, V)
        activation/NAME         the loss's gradient with respect to each named activation
        parameter/NAME          … each parameter; that of a tied wte.weight has both shares
        adamw/losses            before each of ten steps: (10,)
        adamw/norms/STEP        every parameter's L2 norm after the step, in the order of "parameters": (P,)

The batch is rows of unequal lengths, padded with 0, labels −100 where nothing is counted. A step takes its gradient in
two micro-batches, the first row and the others, of unequal numbers of labels. The optimizer's epsilon and decay are
large, so that a mistake in their place shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save, save_file

from ..gradients.metrics import IGNORED
from ..model import params as P
from ..model.taps import ON_REQUEST, points
from ..system.files import JSONObject, read_json, write_whole
from ..text.gpt2 import GPT2
from ..training import AdamW, loss_and_gradients
from ..training.gradient import NextIds
from ..weights.load import floats
from . import answers
from .checks import Check

Array = np.ndarray
ABOUT, TENSORS = "training.json", "training.safetensors"
FORMAT, VERSION = "gpt2_np training bundle", 1
# Of each truth's largest entry: what float32 stays well within, and float64 by far. FLOOR is a share of the largest
# gradient of all, for those that are 0 but for rounding (a key's bias).
TOLERANCE, FLOOR = 2e-5, 1e-7
STEPS = 10
OPTIMIZER = {"learning_rate": 1e-2, "betas": [0.9, 0.95], "epsilon": 1e-3, "weight_decay": 0.1, "decayed": "all"}


def batch(vocabulary: int, positions: int, seed: int = 0) -> tuple[Array, Array]:
    """Ids and labels, (B, T) both: rows of unequal lengths; label t is the id after id t."""
    longest = min(7, positions - 1)
    lengths, random = (longest, max(1, longest // 2), max(1, longest - 1)), np.random.default_rng(seed)
    ids, labels = np.zeros((3, longest), np.int64), np.full((3, longest), IGNORED)
    for row, length in enumerate(lengths):
        text = random.integers(0, vocabulary, length + 1)
        ids[row, :length], labels[row, :length] = text[:-1], text[1:]
    return ids, labels


def export(folder: Path, exact: GPT2) -> None:
    """Add the truths of training to a bundle, of a model in float64."""
    ids, labels = batch(exact.config.vocab_size, exact.config.n_positions)
    names = list(P.tensors(exact.params))
    order = ["loss", "rows/logits", "rows/cached"]
    order += [f"activation/{name}" for name in reversed(points(exact.config)) if not name.endswith(ON_REQUEST)]
    order += [f"parameter/{name}" for name in reversed(names)]
    order += [*(f"adamw/norms/{step}" for step in range(1, STEPS + 1)), "adamw/losses"]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "ids": ids.tolist(),
        "labels": labels.tolist(),
        "order": order,
        "parameters": names,
        "optimizer": OPTIMIZER,
        "micro_batches": [[0], [1, 2]],
        "tolerance": TOLERANCE,
        "floor": FLOOR,
    }
    write_whole(folder / TENSORS, save(tensors(about, exact)))
    write_whole(folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())


def tensors(
    about: JSONObject,
    model: GPT2,
    *,
    gradients: Callable[..., tuple[float, Any]] = loss_and_gradients,
    adamw: AdamW | None = None,
) -> dict[str, Array]:
    """Everything that a bundle asks for, as one implementation computes it: here ours."""
    ids, labels = np.array(about["ids"]), np.array(about["labels"])
    counted = labels != IGNORED
    run = model.run_with_gradients(ids, NextIds(labels, int(counted.sum())), parameters=True)
    assert run.params is not None
    found = {"loss": np.array([run.value.sum()]), "rows/logits": np.where(counted[:, :, None], run.logits, 0)}
    found["rows/cached"] = cached(
        model, [row[:length].tolist() for row, length in zip(ids, counted.sum(1), strict=True)]
    )
    found |= {f"activation/{name}": np.ascontiguousarray(run.grads[name]) for name in run.grads}
    found |= {f"parameter/{name}": np.ascontiguousarray(x) for name, x in P.tensors(run.params).items()}

    settings = about["optimizer"] | {"betas": tuple(about["optimizer"]["betas"])}
    adamw, state, losses = adamw or AdamW(**settings, backend="numpy"), None, []
    parts = [(ids[rows], labels[rows]) for rows in about["micro_batches"]]
    params = P.map_arrays(model.params, np.array)
    for step in range(1, STEPS + 1):
        loss, grads = gradients(model.with_params(params), parts)
        params, state = adamw.step(params, grads, state, donate=True)
        losses.append(loss)
        norms = [float(np.linalg.norm(x.astype(np.float64).reshape(-1))) for x in P.tensors(params).values()]
        found[f"adamw/norms/{step}"] = np.array(norms)
    return found | {"adamw/losses": np.array(losses)}


def cached(model: GPT2, rows: list[list[int]]) -> Array:
    """The logits after each row's last id, the ids before it having been fed earlier: (B, V)."""
    session = model.start()
    session.feed([row[:-1] or row for row in rows])
    return session.feed([row[-1:] for row in rows])


def answer(folder: Path, bundle: Path, model: GPT2, **means: Any) -> None:
    """Write the answers that an implementation under test writes, as an example to follow."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(read(bundle), model, **means), folder / TENSORS)


def read(bundle: Path) -> JSONObject:
    """``training.json``. ``ValueError`` when it is none, or of another version."""
    about = read_json(bundle / ABOUT)
    if not isinstance(about, dict) or (about.get("format"), about.get("version")) != (FORMAT, VERSION):
        raise ValueError(f"{bundle / ABOUT} must be version {VERSION} of {FORMAT!r}")
    for key in ("ids", "labels", "order", "parameters", "micro_batches"):
        if not isinstance(about.get(key), list):
            raise ValueError(f"{bundle / ABOUT}: {key} must be a list, got {about.get(key)!r:.80}")
    for key in ("order", "parameters"):
        wrong = next((name for name in about[key] if not isinstance(name, str)), None)
        if wrong is not None or None in about[key]:
            raise ValueError(f"{bundle / ABOUT}: {key} must be a list of names, got {wrong!r:.80} among them")
    for key in ("tolerance", "floor"):
        if isinstance(about.get(key), bool) or not isinstance(about.get(key), float) or not 0 < about[key] < 1:
            raise ValueError(f"{bundle / ABOUT}: {key} must be between 0 and 1, got {about.get(key)!r}")
    return about


def check(bundle: Path, theirs: Path, *, tolerance: float | None = None) -> Iterator[Check]:
    """Judge another implementation's ``training.safetensors``, tensor by tensor in the bundle's order.

    Any of the names may be left out; a `tolerance` takes the place of the bundle's. ``ValueError`` for a file that
    shares none, a tensor of another shape, or a bundle that lacks one or holds NaN.
    """
    about, truth, given = read(bundle), floats(bundle / TENSORS), floats(theirs / TENSORS)
    lacking = next((name for name in about["order"] if name not in truth), None)
    if lacking is not None:
        raise ValueError(f"{bundle / TENSORS} lacks {lacking}, which {ABOUT}'s order names")
    answers.refuse_nan(bundle / TENSORS, truth)
    if not any(name in given for name in about["order"]):
        raise ValueError(f"{theirs / TENSORS} shares no tensor with the bundle; names are like 'parameter/wpe.weight'")
    parameters = [x for name, x in truth.items() if name.startswith("parameter/")]
    largest = max((float(np.abs(x).max(initial=0)) for x in parameters), default=1.0)
    for name in about["order"]:
        if name not in given:
            yield Check(name, answers.LEFT_OUT)
            continue
        if given[name].shape != truth[name].shape:
            shapes = f"must be {truth[name].shape}, got {given[name].shape}"
            raise ValueError(f"{theirs / TENSORS}: {name} {shapes}; is it of this model?")
        far, place, note = answers.apart(given[name], truth[name])
        share = tolerance or about["tolerance"]
        allowed = share * float(np.abs(truth[name]).max(initial=0)) + about["floor"] * largest
        where = str(list(place))
        if name.startswith("adamw/norms/") and place and place[0] < len(about["parameters"]):
            where = about["parameters"][place[0]]
        yield Check(name, "same" if far <= allowed else "mismatch", far, where, note=note)
