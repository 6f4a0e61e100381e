"""The settings of a dictionary's training run: every number that its result depends on, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ....engine import available
from ....training.optimizer import AdamW
from ....training.schedule import share
from ..config import ARCHITECTURES, has_skip, is_transcoder

# What a batch decides while it is learned, and what is saved of it: JumpReLU with one threshold, as SAELens does.
BATCHWISE = {"batchtopk": "jumprelu", "batchtopk_transcoder": "jumprelu_transcoder"}
TRAINED = (
    "topk",
    "batchtopk",
    "standard",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "batchtopk_transcoder",
)


def setting(default: Any, group: str, text: str) -> Any:
    """A field with what the command line says of it."""
    return field(default=default, metadata={"group": group, "help": text})


@dataclass(frozen=True)
class Settings:
    """Named as in SAELens's configurations where it has the same. ``ValueError`` quotes the rule broken."""

    architecture: str = setting("topk", "Dictionary", f"One of {', '.join(TRAINED)}.")
    d_sae: int = setting(2048, "Dictionary", "The number of features.")
    k: int = setting(32, "Dictionary", "The number of features at a token: exactly (topk), or on average (batchtopk).")
    l1_coefficient: float = setting(1.0, "Sparsity", "The coefficient of the L1 penalty (standard, transcoder).")
    l0_coefficient: float = setting(1.0, "Sparsity", "The coefficient of the L0 penalty (jumprelu).")
    jumprelu_bandwidth: float = setting(
        0.05, "Sparsity", "The bandwidth around a feature's threshold in which its gradient is estimated (jumprelu)."
    )
    jumprelu_init_threshold: float = setting(0.01, "Sparsity", "The initial threshold (jumprelu).")
    coefficient_warm_up_steps: int = setting(
        0, "Sparsity", "The number of steps in which the sparsity penalty grows from 0."
    )
    aux_loss_coefficient: float = setting(
        1 / 32,
        "Sparsity",
        "The coefficient of the auxiliary loss, by which dead features predict the error (topk, batchtopk) or are "
        "pulled up (jumprelu).",
    )
    dead_feature_window: int = setting(
        1000, "Sparsity", "The number of steps without firing after which a feature counts as dead."
    )
    steps: int = setting(5000, "Learning", "The number of steps.")
    batch_size: int = setting(1024, "Learning", "The number of vectors in a step.")
    learning_rate: float = setting(4e-4, "Learning", "The learning rate at its peak.")
    lr_scheduler_type: str = setting(
        "constant_with_warmup", "Learning", "The schedule of the learning rate, by its name in transformers."
    )
    warmup_steps: int = setting(100, "Learning", "The number of steps in which the learning rate rises.")
    adam_beta1: float = setting(0.9, "Learning", "Adam's.")
    adam_beta2: float = setting(0.999, "Learning", "Adam's.")
    adam_epsilon: float = setting(1e-8, "Learning", "Adam's.")
    max_grad_norm: float = setting(1.0, "Learning", "Clip gradients to this norm; 0 turns clipping off.")
    normalize: bool = setting(
        True,
        "Vectors",
        "Scale all vectors by one factor to a mean length of √d; it is folded into the weights at the end.",
    )
    skip_first: int = setting(
        1, "Vectors", "The number of positions at each text's start that are left out, since they are outliers."
    )
    group_mib: int = setting(512, "Vectors", "The size in MiB of the buffer that batches are drawn from.")
    save_steps: int = setting(500, "Run", "The number of steps between checkpoints.")
    report_steps: int = setting(50, "Run", "The number of steps between lines of loss.csv.")
    seed: int = setting(0, "Run", "The seed of the initial weights and of the order of the vectors.")
    backend: available.Backend = field(default_factory=available.default)

    def __post_init__(self) -> None:
        if self.architecture not in TRAINED:
            raise ValueError(
                f"architecture must be one of {', '.join(TRAINED)} to be trained, got {self.architecture!r}"
            )
        for name in (
            "d_sae",
            "k",
            "steps",
            "batch_size",
            "save_steps",
            "report_steps",
            "dead_feature_window",
            "group_mib",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "l1_coefficient", "l0_coefficient", "coefficient_warm_up_steps", "aux_loss_coefficient", "warmup_steps",
            "max_grad_norm", "skip_first", "seed",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("jumprelu_bandwidth", "jumprelu_init_threshold", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if "topk" in self.activation and self.k > self.d_sae:
            raise ValueError(f"k must be at most d_sae, {self.d_sae}, got {self.k}")
        self.rate(0)
        self.adamw()

    @property
    def activation(self) -> str:
        """The activation function of the features in training: "topk", "batchtopk", "relu" or "jumprelu"."""
        return "batchtopk" if self.architecture in BATCHWISE else ARCHITECTURES[self.architecture]

    @property
    def saved_as(self) -> str:
        """The architecture of the dictionary that is saved."""
        return BATCHWISE.get(self.architecture, self.architecture)

    @property
    def is_transcoder(self) -> bool:
        """Whether it predicts another activation than the one it reads."""
        return is_transcoder(self.architecture)

    @property
    def has_skip(self) -> bool:
        """Whether a matrix leads past the features."""
        return has_skip(self.architecture)

    @property
    def coefficient(self) -> float:
        """The final coefficient of the sparsity penalty."""
        paid = {"topk": 0.0, "batchtopk": 0.0, "relu": self.l1_coefficient, "jumprelu": self.l0_coefficient}
        return paid[self.activation]

    def coefficient_at(self, step: int) -> float:
        """Return the coefficient of the sparsity penalty in a step, counted from 0: SAELens's linear warm-up."""
        if self.coefficient_warm_up_steps == 0:
            return self.coefficient
        return self.coefficient * min(1.0, step / self.coefficient_warm_up_steps)

    def rate(self, step: int) -> float:
        """The learning rate of a step that counts from 0."""
        return self.learning_rate * share(self.lr_scheduler_type, step, self.warmup_steps, self.steps)

    def adamw(self) -> AdamW:
        """The optimizer: Adam, without weight decay."""
        betas = (self.adam_beta1, self.adam_beta2)
        return AdamW(self.learning_rate, betas, self.adam_epsilon, 0.0, backend=self.backend)
