"""The settings of a training run: every number that its result depends on, checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..engine import available
from ..system.files import JSONObject
from .optimizer import AdamW
from .schedule import share

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


@dataclass(frozen=True)
class Settings:
    """Named as in transformers' ``TrainingArguments`` where it has the same. ``ValueError`` quotes the rule broken."""

    steps: int = 100
    batch_size: int = 8  # rows of a micro-batch
    gradient_accumulation_steps: int = 1  # micro-batches of a step
    context: int = 128  # ids that a row reads
    learning_rate: float = 1e-4  # at its peak
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    decayed: Literal["all", "matrices"] = "matrices"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0  # 0: gradients aren't clipped
    held_out: float = 0.05  # share of the documents
    eval_steps: int = 50  # steps between looks at the held-out text, each with a sample
    save_steps: int = 100  # steps between checkpoints
    sample_prompt: str = ""
    sample_tokens: int = 60  # 0: no samples
    lora_rank: int = 0  # 0: all parameters learn
    lora_alpha: float = 0.0  # 0: twice the rank
    seed: int = 0
    backend: available.Backend = field(default_factory=available.default)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "context", "eval_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "sample_tokens", "lora_rank", "seed", "max_grad_norm", "lora_alpha"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out must be in [0, 1), got {self.held_out}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        self.rate(0)
        self.adamw()

    def rate(self, step: int) -> float:
        """Return the learning rate of a step counted from 0; as in transformers, a warm-up's first is 0."""
        return self.learning_rate * share(self.lr_scheduler_type, step, self.warmup_steps, self.steps)

    def adamw(self) -> AdamW:
        """The optimizer."""
        betas = (self.adam_beta1, self.adam_beta2)
        return AdamW(self.learning_rate, betas, self.adam_epsilon, self.weight_decay, self.decayed, self.backend)

    @property
    def tokens_a_step(self) -> int:
        """The number of ids that are predicted in a step."""
        return self.batch_size * self.gradient_accumulation_steps * self.context


def check_same(settings: DataclassInstance, before: JSONObject) -> None:
    """Raise ``ValueError``, which names the first setting that differs from the run's original one."""
    for name, value in asdict(settings).items():
        if before.get(name) != value:
            raise ValueError(f"--resume goes on with {name} {before.get(name)!r}, as the run began; got {value!r}")


def settings_of(kind: type[Kind], names: dict[str, Any]) -> Kind:
    """Build settings of a kind, a dataclass, from keywords. ``ValueError`` for an unknown one."""
    known = [one.name for one in fields(kind)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is no setting of training; known are {', '.join(known)}")
    return kind(**names)


def from_names(names: dict[str, Any]) -> Settings:
    """Build `Settings` from keywords: see `settings_of`."""
    return settings_of(Settings, names)
