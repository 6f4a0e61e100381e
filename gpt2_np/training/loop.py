"""The training run: steps, evaluations on the held-out text, samples, checkpoints; and exact resumption."""

from __future__ import annotations

import contextlib
import hashlib
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ..system.files import JSONObject, read_json, write_whole
from ..system.reuse import reusing
from ..text.gpt2 import GPT2
from ..text.scoring import losses
from ..weights.save import as_json
from . import checkpoint, data
from .curve import draw
from .gradient import clipping, loss_and_gradients, norm
from .learner import Learner, learner
from .optimizer import State
from .pace import Pace
from .settings import Settings, check_same, from_names
from .tree import leaves

Array = np.ndarray
COLUMNS = ("step", "tokens", "loss_nats", "learning_rate", "gradient_norm", "held_out_nats", "held_out_bits_per_byte")
KEPT_FOR_STEPS = 6  # times the parameters' size: memory that one step may keep for the next one
WINDOWS = 24  # windows of the held-out text per evaluation


@dataclass(frozen=True)
class Report:
    """The state of a run after `step` of `steps`: the step's loss, in nats a token, and an evaluation if there was
    one.
    """

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float
    held_out: float | None = None  # nats a token
    sample: str | None = None


class Stopped(KeyboardInterrupt):
    """Raised after Ctrl-C: everything learned so far is in the checkpoint of ``step``."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}, which is saved")
        self.step = step


def train(
    model: GPT2,
    sources: Sequence[Any],
    out: str | Path,
    *,
    resume: bool = False,
    report: Callable[[Report], object] | None = None,
    name: str | None = None,
    **settings: Any,
) -> Path:
    """Train a model on texts, and return the folder `out`, which holds the result as a model's folder.

    `sources` are files of text (documents apart by a line ``<|endoftext|>``), JSONL files ({"text": …} or {"ids": […]}
    a line), or lists of ids, a document each. `settings` are those of `Settings`. `report` receives a `Report` after
    every step. `name` is what adapters call the model that they belong to.

    With `resume` a run in `out` continues from its last checkpoint, to the same bits as without the interruption, on
    the same machine with the same number of threads; if there is no checkpoint yet it begins, and if it is complete
    nothing is done. Ctrl-C ends the step, saves, and raises `Stopped`, a ``KeyboardInterrupt``.

    ``ValueError`` or ``OSError``, in one line: invalid settings or texts, a folder in use, a loss that isn't finite, a
    full disk. The last checkpoint stays.

    Examples:
        >>> import tempfile
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.training import train
        >>> settings = {"steps": 1, "context": 8, "batch_size": 1, "sample_tokens": 0}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = train(model, [[5, 6, 7, 8] * 9], f"{folder}/run", **settings)
        ...     learned = GPT2.from_pretrained(out)
        >>> bool((learned([1, 2]) == model([1, 2])).all())
        False
    """
    chosen, folder = from_names(settings), Path(out)
    if chosen.context > model.config.n_positions:
        raise ValueError(
            f"context must be at most the model's {model.config.n_positions} positions, got {chosen.context}"
        )
    if not resume and checkpoint.in_use(folder):
        raise ValueError(
            f"{folder} is in use; go on with the run there (--resume, resume=True), or choose another folder"
        )
    saved = checkpoint.folders(folder)
    began = read_began(folder) if checkpoint.in_use(folder) else None
    if began is not None:
        check_same(chosen, began["settings"])
    if saved and checkpoint.step_of(saved[-1]) >= chosen.steps:
        checkpoint.publish(folder, saved[-1])
        return folder
    training, held = corpora(data.read(sources), model, chosen)
    fingerprint = hashlib.sha256(training.ids.tobytes() + held.ids.tobytes()).hexdigest()
    if began is not None and began.get("text") != fingerprint:
        raise ValueError("--resume needs the text that the run began with, and this one differs")
    folder.mkdir(parents=True, exist_ok=True)
    if began is None:
        write_whole(folder / checkpoint.SETTINGS, as_json({"settings": asdict(chosen), "text": fingerprint}))
    student = learner(model, chosen, saved[-1] if saved else None, name)
    state = checkpoint.read_state(saved[-1], student.trained, model.config) if saved else None
    checkpoint.cut(folder, -1 if state is None else state.step)
    size = sum(one.nbytes for one in leaves(student.base.params))
    with warnings.catch_warnings(), reusing(KEPT_FOR_STEPS * size), ctrl_c() as asked:
        warnings.simplefilter("ignore", RuntimeWarning)  # a loss that isn't finite is an error, said once
        run(student, state, training, held, folder, chosen, report, asked)
    return folder


def run(
    student: Learner,
    state: State | None,
    training: data.Corpus,
    held: data.Corpus,
    out: Path,
    settings: Settings,
    report: Callable[[Report], object] | None,
    asked: threading.Event,
) -> None:
    """Run all remaining steps."""
    adamw, pace = settings.adamw(), Pace()
    if state is None and held.ids.size:
        found = look(student.model(), held, settings)
        checkpoint.append(out / "loss.csv", COLUMNS, [0, 0, "", "", "", *found])
    for step in range(0 if state is None else state.step, settings.steps):
        rows = data.rows(
            training, step, settings.batch_size * settings.gradient_accumulation_steps, settings.context, settings.seed
        )
        batches = [(part[:, :-1], part[:, 1:]) for part in np.split(rows, settings.gradient_accumulation_steps)]
        loss, of_params = loss_and_gradients(student.model(), batches)
        grads = student.gradients(of_params)
        length = norm(grads)
        if not math.isfinite(loss) or not math.isfinite(length):
            if state is not None and checkpoint.folders(out)[-1:] != [out / f"checkpoint-{step}"]:
                checkpoint.write(out, step, state, student.write)
            raise ValueError(
                f"step {step + 1} has a loss of {loss} and a gradient of norm {length}, and is not taken; "
                f"what was learned before is in {out}; try a lower learning_rate"
            )
        rate, limit = settings.rate(step), settings.max_grad_norm or None
        trained, state = adamw.step(
            student.trained, grads, state, True, learning_rate=rate, scale=clipping(length, limit)
        )
        student = replace(student, trained=trained)
        del of_params, grads  # as large as the model: freed before the next step allocates its own
        done, last, stop = step + 1, step + 1 == settings.steps, asked.is_set()
        found, text = ("", ""), None
        if done % settings.eval_steps == 0 or last:
            found = look(student.model(), held, settings) if held.ids.size else found
            text = sample(student.model(), settings)
            if text is not None:
                with (out / "samples.txt").open("a", encoding="utf-8") as file:
                    file.write(f"--- step {done}\n{text}\n")
        row = [done, done * settings.tokens_a_step, f"{loss:.6f}", f"{rate:.6g}", f"{length:.6g}", *found]
        checkpoint.append(out / "loss.csv", COLUMNS, row)
        if done % settings.save_steps == 0 or last or stop:
            checkpoint.write(out, done, state, student.write)
            draw(out / "loss.csv", out / "loss.png")
        if report is not None:
            seconds = pace.of_step()
            speed, left = settings.tokens_a_step / seconds, (settings.steps - done) * seconds
            report(Report(done, settings.steps, loss, speed, left, float(found[0]) if found[0] else None, text))
        if stop and not last:
            raise Stopped(done)


def corpora(documents: Sequence[data.Document], model: GPT2, settings: Settings) -> tuple[data.Corpus, data.Corpus]:
    """Return the training and the held-out corpus. ``ValueError`` if there is less than one row of text."""
    if not documents:
        raise ValueError("there is no text to train on: the files are empty")
    training, held = (data.encode(part, model) for part in data.split(documents, settings.held_out))
    if len(training.ids) <= settings.context:
        raise ValueError(
            f"the text to train on must have more ids than a context of {settings.context}, got {len(training.ids)}; "
            "give more text, or a smaller context"
        )
    return training, held if len(held.ids) > 1 else data.Corpus(held.ids[:0], 0, 0)


def look(model: GPT2, held: data.Corpus, settings: Settings) -> tuple[str, str]:
    """Return the mean loss on windows of the held-out text, in nats a token, and bits a byte ("" without a text)."""
    rows = data.evenly_spaced(held, WINDOWS, settings.context)
    parts = [rows[first : first + settings.batch_size] for first in range(0, len(rows), settings.batch_size)]
    nats = [losses(logits, row[1:]) for part in parts for logits, row in zip(model(part[:, :-1]), part, strict=True)]
    mean = float(np.concatenate(nats).mean())
    return f"{mean:.6f}", f"{mean / math.log(2) * len(held.ids) / held.bytes:.6f}" if held.bytes else ""


def sample(model: GPT2, settings: Settings) -> str | None:
    """Return a text that the model writes now, always from the same seed; None without a tokenizer."""
    room = model.config.n_positions - len(model.prompt_ids(settings.sample_prompt)) if model.has_tokenizer else 0
    if not min(settings.sample_tokens, room):
        return None
    options: dict[str, Any] = {"do_sample": True, "temperature": 0.8, "seed": settings.seed}
    out = model.generate(settings.sample_prompt, max_new_tokens=min(settings.sample_tokens, room), **options)
    return settings.sample_prompt + str(out.text)


def read_began(out: Path) -> JSONObject:
    """Read a run's description in its folder. ``ValueError`` for a folder that holds something else."""
    path = out / checkpoint.SETTINGS
    if not path.is_file():
        raise ValueError(f"{out} holds no run that could go on: it has no {checkpoint.SETTINGS}")
    began = read_json(path)
    if not isinstance(began, dict) or not isinstance(began.get("settings"), dict):
        raise ValueError(f"{path} must hold a run's settings")
    return began


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C sets; the second one interrupts at once. The handler is restored
    afterwards.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
