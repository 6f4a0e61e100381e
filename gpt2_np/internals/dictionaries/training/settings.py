"""What a dictionary's training run is: every number that its result depends on, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ....engine import available
from ....system.files import JSONObject
from ....training.optimizer import AdamW
from ....training.schedule import share
from ..config import ARCHITECTURES

TRAINED = (
    "topk",
    "standard",
    "jumprelu",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)


@dataclass(frozen=True)
class Settings:
    """Named as in SAELens's configurations where it has the same. ``ValueError`` quotes the rule broken."""

    architecture: str = "topk"
    d_sae: int = 2048
    k: int = 32  # topk: features that fire at a token
    l1_coefficient: float = 1.0  # standard, transcoder
    l0_coefficient: float = 1.0  # jumprelu
    jumprelu_bandwidth: float = 0.05
    jumprelu_init_threshold: float = 0.01
    coefficient_warm_up_steps: int = 0  # in which the l1 or l0 coefficient grows from 0
    aux_loss_coefficient: float = 1.0 / 32  # topk: dead features predict the error; jumprelu: they are pulled up
    dead_feature_window: int = 1000  # steps without firing after which a feature is dead
    steps: int = 5000
    batch_size: int = 1024  # vectors of a step
    learning_rate: float = 4e-4
    lr_scheduler_type: str = "constant_with_warmup"
    warmup_steps: int = 100
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0  # 0: gradients aren't clipped
    normalize: bool = True  # vectors are multiplied by one factor, to the mean length √d; it is folded in at the end
    skip_first: int = 1  # positions at the beginning of each text that don't count: their activations are outliers
    group_mib: int = 512  # of vectors, among which those of a batch are drawn
    save_steps: int = 500
    report_steps: int = 50  # between lines of the table of losses
    seed: int = 0
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
        if self.architecture == "topk" and self.k > self.d_sae:
            raise ValueError(f"k must be at most d_sae, {self.d_sae}, got {self.k}")
        self.rate(0)
        self.adamw()

    @property
    def activation(self) -> str:
        """What turns pre-activations into features: "topk", "relu" or "jumprelu"."""
        return ARCHITECTURES[self.architecture]

    @property
    def is_transcoder(self) -> bool:
        """Whether it predicts another activation than the one it reads."""
        return self.architecture.endswith("transcoder")

    @property
    def has_skip(self) -> bool:
        """Whether a matrix leads past the features."""
        return "skip" in self.architecture

    @property
    def coefficient(self) -> float:
        """What sparsity is paid with in the end."""
        return {"topk": 0.0, "relu": self.l1_coefficient, "jumprelu": self.l0_coefficient}[self.activation]

    def coefficient_at(self, step: int) -> float:
        """What sparsity is paid with in a step that counts from 0: SAELens's linear warm-up."""
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

    def check_same(self, before: JSONObject) -> None:
        """``ValueError`` names the first setting that isn't the one that a run began with."""
        for name, value in asdict(self).items():
            if before.get(name) != value:
                raise ValueError(f"--resume goes on with {name} {before.get(name)!r}, as the run began; got {value!r}")


def from_names(names: dict[str, Any]) -> Settings:
    """Settings from keywords. ``ValueError`` for one that isn't known."""
    known = [one.name for one in fields(Settings)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting of training; known are {', '.join(known)}")
    return Settings(**names)
