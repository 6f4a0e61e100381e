"""The training run: steps, a table of losses, checkpoints; and exact resumption."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ....display import Readable
from ....system.files import write_whole
from ....training import checkpoint
from ....training.gradient import clipping, norm
from ....training.loop import Stopped, ctrl_c, read_began
from ....training.optimizer import State
from ....training.pace import Pace
from ....training.settings import check_same, settings_of
from ....weights.load import open_safetensors
from ....weights.save import as_json, safetensors
from ...capture import Captured
from ..config import Config
from ..dictionary import Dictionary
from ..save import save
from .losses import Step, Weights, loss_and_gradients
from .settings import Settings
from .vectors import Vectors

Array = np.ndarray
RAW = "training.safetensors"  # the weights as they learn, before anything is folded into them
THRESHOLD_SHARE = 0.01  # of a step in the threshold of what a batch decides: SAELens's topk_threshold_lr
COLUMNS = ("step", "loss", "mse", "sparsity", "auxiliary", "l0", "explained_variance", "dead", "learning_rate", "norm")


@dataclass(frozen=True)
class Report:
    """The state of a run after `step` of `steps`: what the step found, and how many features are dead."""

    step: int
    steps: int
    loss: float
    l0: float
    explained: float
    dead: int
    seconds_left: float


def train(
    captured: Captured | Path | str,
    out: Path | str,
    hook_name: str,
    hook_name_out: str | None = None,
    *,
    resume: bool = False,
    metadata: Mapping[str, object] | None = None,
    report: Callable[[Report], object] | None = None,
    **settings: Any,
) -> Dictionary:
    """Train a dictionary on captured activations, and return it; the folder `out` holds it in SAELens's format.

    `hook_name` is what it reads, `hook_name_out` what a transcoder predicts, by TransformerLens's names; both must have
    been captured (`capture_corpus`). `settings` are those of `Settings`; `metadata` goes into ``cfg.json``. The
    directions keep unit length. ``loss.csv`` in `out` has a line every `report_steps`; `report` receives a `Report`
    after every step.

    With `resume` a run in `out` goes on from its last checkpoint, to the very bits that it would have had without a
    stop, on the same machine with the same number of threads. Ctrl-C ends the step, saves, and raises ``Stopped``.
    ``ValueError`` or ``OSError``, in one line: settings that can't be, a folder in use, activations that weren't
    captured, a loss that isn't finite, a full disk. The last checkpoint stays.
    """
    chosen, folder = settings_of(Settings, settings), Path(out)
    if chosen.is_transcoder != (hook_name_out is not None):
        raise ValueError(
            f"hook_name_out is what a transcoder predicts, got {hook_name_out!r} for {chosen.architecture}"
        )
    source = captured if isinstance(captured, Captured) else Captured(Path(captured))
    vectors = Vectors(
        source,
        hook_name,
        hook_name_out or hook_name,
        skip=chosen.skip_first,
        seed=chosen.seed,
        group_bytes=chosen.group_mib << 20,
    )
    if not resume and checkpoint.in_use(folder):
        raise ValueError(f"{folder} is in use; go on with the run there (--resume, resume=True), or choose another")
    saved = checkpoint.folders(folder)
    if checkpoint.in_use(folder):
        began = read_began(folder)
        check_same(chosen, began["settings"])
        if began.get("capture") != vectors.fingerprint():
            raise ValueError("--resume needs the capture that the run began with, and this one differs")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        about = {"settings": asdict(chosen), "capture": vectors.fingerprint()}
        write_whole(folder / checkpoint.SETTINGS, as_json(about))
    place = {"hook_name": hook_name, "hook_name_out": hook_name_out, "metadata": dict(metadata or {})}
    run = Run(chosen, vectors, folder, place)
    if saved:
        run.restore(saved[-1])
    else:
        run.begin()
    if run.step >= chosen.steps:
        checkpoint.publish(folder, saved[-1])
    with ctrl_c() as asked, np.errstate(over="ignore", invalid="ignore"):
        while run.step < chosen.steps:
            run.one(report, stop=asked.is_set)
    return run.dictionary()


class Run(Readable):
    """A run between two steps: ``weights``, the optimizer's ``state``, the steps since each feature fired.

    ``threshold`` is of "batchtopk": a moving average of the least feature that fired in a step.
    """

    def __init__(self, settings: Settings, vectors: Vectors, out: Path, place: dict[str, Any]) -> None:
        self.settings, self.vectors, self.out, self.place = settings, vectors, out, place
        self.state: State | None = None
        self.step, self.pace = 0, Pace()
        self.weights: Weights = {}
        self.silent = np.zeros(settings.d_sae, np.int64)
        self.factors = (1.0, 1.0)
        self.threshold = 0.0

    def begin(self) -> None:
        """Random directions of unit length, the encoder their transpose; ``b_dec`` the mean of what is predicted."""
        settings, D, O = self.settings, self.vectors.width, self.vectors.width_out
        x, y = self.vectors.first()
        self.factors = (factor(x), factor(y)) if settings.normalize else (1.0, 1.0)
        random = np.random.default_rng([settings.seed, settings.d_sae])
        W_dec = random.normal(size=(settings.d_sae, O)).astype(np.float32)
        W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
        if settings.is_transcoder:
            W_enc = random.normal(size=(D, settings.d_sae)).astype(np.float32)
            W_enc /= np.linalg.norm(W_enc, axis=0)
        else:
            W_enc = W_dec.T.copy()
        # Where nothing limits how many features fire, they begin small, so that sparsity costs less than it tells.
        W_enc *= np.float32(1.0 if "topk" in settings.activation else 0.1)
        mean = y.mean(axis=0, dtype=np.float64) * self.factors[1]
        self.weights = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": np.zeros(settings.d_sae, np.float32)}
        self.weights["b_dec"] = mean.astype(np.float32)
        if settings.activation == "jumprelu":
            start = math.log(settings.jumprelu_init_threshold)
            self.weights["log_threshold"] = np.full(settings.d_sae, start, np.float32)
        if settings.has_skip:
            self.weights["W_skip"] = np.zeros((O, D), np.float32)

    def restore(self, folder: Path) -> None:
        """As a checkpoint has it. ``ValueError`` where it isn't one of this run."""
        self.begin()
        stored = open_safetensors(folder / RAW)
        for name, like in self.kept().items():
            kind, x = stored.get(name, ("nothing", np.zeros(0)))
            if kind != {"f4": "F32", "f8": "F64", "i8": "I64"}[like.dtype.str[1:]] or x.nbytes != like.nbytes:
                raise ValueError(f"{folder / RAW}: {name} must be there, {like.dtype} of the shape {like.shape}")
        found = {name: x for name, (_, x) in stored.items()}
        self.weights = {name: found[name].reshape(x.shape).copy() for name, x in self.weights.items()}
        self.silent = found["silent"].view(np.int64).reshape(-1).copy()
        self.factors = tuple(found["factors"].tolist())
        self.threshold = float(found["threshold"][0]) if "threshold" in self.kept() else 0.0
        self.state = checkpoint.read_state(folder, self.weights, None)  # type: ignore[arg-type]  # a plain nest
        self.step = self.state.step
        checkpoint.cut(self.out, self.step)

    def one(self, report: Callable[[Report], object] | None, stop: Callable[[], bool]) -> None:
        """One step; and a checkpoint after it if one is due, or at the end."""
        settings = self.settings
        x, y = self.vectors.batch(self.step, settings.batch_size)
        same = y is x
        x = x * np.float32(self.factors[0])
        y = x if same else y * np.float32(self.factors[1])
        dead = self.silent > settings.dead_feature_window
        found = loss_and_gradients(self.weights, x, y, settings, settings.coefficient_at(self.step), dead)
        length = norm(found.gradients)
        if not math.isfinite(found.loss) or not math.isfinite(length):
            raise ValueError(
                f"step {self.step + 1} has a loss of {found.loss} and a gradient of norm {length}, and is not taken; "
                f"what was learned before is in {self.out}; try a lower learning_rate"
            )
        rate, limit = settings.rate(self.step), settings.max_grad_norm or None
        self.weights, self.state = settings.adamw().step(
            self.weights,
            {name: found.gradients[name] for name in self.weights},
            self.state,
            True,
            learning_rate=rate,
            scale=clipping(length, limit),
        )
        self.weights["W_dec"] /= np.linalg.norm(self.weights["W_dec"], axis=1, keepdims=True)
        self.silent = np.where(found.fired, 0, self.silent + 1)
        if found.l0:  # a plain mean at first, so that short runs don't start from 0
            self.threshold += max(THRESHOLD_SHARE, 1 / (self.step + 1)) * (found.least - self.threshold)
        self.step += 1
        self.tell(found, int(dead.sum()), rate, length, report)
        last = self.step == settings.steps
        stopping = stop()
        if self.step % settings.save_steps == 0 or last or stopping:
            checkpoint.write(self.out, self.step, self.state, self.write)
        if stopping and not last:
            raise Stopped(self.step)

    def tell(
        self, found: Step, dead: int, rate: float, length: float, report: Callable[[Report], object] | None
    ) -> None:
        """Append to the table of losses, and call the reporting function."""
        settings = self.settings
        if self.step % settings.report_steps == 0 or self.step == settings.steps:
            numbers = (found.loss, found.mse, found.sparsity, found.auxiliary, found.l0, found.explained)
            shown = [f"{number:.6g}" for number in (*numbers, dead, rate, length)]
            checkpoint.append(self.out / "loss.csv", COLUMNS, [self.step, *shown])
        if report is not None:
            left = self.pace.of_step() * (settings.steps - self.step)
            report(Report(self.step, settings.steps, found.loss, found.l0, found.explained, dead, left))

    def write(self, folder: Path) -> None:
        """Write the dictionary's files, and the state that a later run resumes from."""
        save(self.dictionary(), folder)
        write_whole(folder / RAW, safetensors(self.kept()))

    def kept(self) -> Weights:
        """What a checkpoint holds beside the optimizer's state."""
        kept = {**self.weights, "silent": self.silent, "factors": np.array(self.factors)}
        return kept | ({"threshold": np.array([self.threshold])} if self.settings.activation == "batchtopk" else {})

    def dictionary(self) -> Dictionary:
        """The dictionary as it is now, for activations as they are: the factors folded in."""
        settings, (read, written) = self.settings, self.factors
        metadata = MappingProxyType(
            {**self.place["metadata"], "training": asdict(settings) | {"steps_done": self.step}}
        )
        config = Config(
            settings.saved_as,
            d_in=self.vectors.width,
            d_sae=settings.d_sae,
            d_out=self.vectors.width_out,
            hook_name=self.place["hook_name"],
            hook_name_out=self.place["hook_name_out"] or self.place["hook_name"],
            k=settings.k if settings.architecture == "topk" else None,
            apply_b_dec_to_input=not settings.is_transcoder,
            reshape_activations="hook_z" if "hook_z" in self.place["hook_name"] else "none",
            metadata=metadata,
        )
        tensors = {name: x for name, x in self.weights.items() if name != "log_threshold"}
        if settings.activation == "jumprelu":
            tensors["threshold"] = np.exp(self.weights["log_threshold"])
        elif settings.activation == "batchtopk":
            tensors["threshold"] = np.full(settings.d_sae, self.threshold, np.float32)
        tensors["W_enc"] = tensors["W_enc"] * np.float32(read)
        tensors["W_dec"], tensors["b_dec"] = (tensors[name] / np.float32(written) for name in ("W_dec", "b_dec"))
        if settings.has_skip:
            tensors["W_skip"] = tensors["W_skip"] * np.float32(read / written)
        return Dictionary(config, tensors)


def factor(x: Array) -> float:
    """Return the factor that scales vectors to a mean length of √d (Anthropic's update of April 2024): SAELens's
    estimate.
    """
    return float(x.shape[1] ** 0.5 / np.linalg.norm(x, axis=1).mean(dtype=np.float64))
