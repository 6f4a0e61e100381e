"""The ``cfg.json`` of a dictionary: SAELens 6's fields, and those of earlier versions that SAELens 6 still reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ...system.files import JSONObject

NORMALISATIONS = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")
# SAELens's architectures for GPT-2: what an activation function does, and whether the dictionary reads one place and
# writes another. A training checkpoint of the batch-wise kinds is read as what SAELens saves of it for use.
ARCHITECTURES = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
UNREAD = {
    "temporal": "its features depend on the tokens before, by an attention of its own",
    "matching_pursuit": "it chooses its features one after another, by an iteration that no product does",
}
OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
# What a file before SAELens 6 has among its other fields that says something of the model and the data.
METADATA = (
    "model_name", "model_class_name", "hook_name", "hook_name_out", "hook_head_index", "model_from_pretrained_kwargs",
    "prepend_bos", "exclude_special_tokens", "neuronpedia_id", "context_size", "seqpos_slice", "dataset_path",
    "sae_lens_training_version",
)  # fmt: skip
MOST = 1 << 24  # a dictionary has fewer features and a model a narrower stream


@dataclass(frozen=True)
class Config:
    """A dictionary's shape and the place in a model that it was trained for.

    ``d_in`` is what it reads, ``d_sae`` the number of features, ``d_out`` what it writes. ``hook_name`` and
    ``hook_name_out`` are TransformerLens's names as the file has them (None where it has none; the same one for an
    autoencoder); ``hook_head_index`` is the head of a dictionary that reads one head alone. ``metadata`` is what else
    the file says of the model and the data.
    """

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    hook_name: str | None = None
    hook_name_out: str | None = None
    hook_head_index: int | None = None
    k: int | None = None
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    reshape_activations: str = "none"
    rescale_acts_by_decoder_norm: bool = False
    metadata: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r:.60}")
        for name in ("d_in", "d_sae", "d_out"):
            whole(name, getattr(self, name), 1, MOST)
        if self.activation in ("topk", "abstopk"):
            whole("k", self.k, 1, self.d_sae)
        one_of("normalize_activations", self.normalize_activations, NORMALISATIONS)
        one_of("reshape_activations", self.reshape_activations, ("none", "hook_z"))
        if self.hook_head_index is not None:
            whole("hook_head_index", self.hook_head_index, 0, MOST)
        for name in ("hook_name", "hook_name_out"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, got {getattr(self, name)!r:.60}")
        if self.is_transcoder and self.apply_b_dec_to_input:
            raise ValueError(
                "apply_b_dec_to_input must be false for a transcoder, whose b_dec is of its output's width"
            )
        if not self.is_transcoder and self.d_out != self.d_in:
            raise ValueError(f"d_out must be d_in for an autoencoder, got {self.d_out} and {self.d_in}")

    @property
    def activation(self) -> str:
        """The activation function of the features: "relu", "topk", "abstopk", "jumprelu" or "gated"."""
        return ARCHITECTURES[self.architecture]

    @property
    def is_transcoder(self) -> bool:
        """Whether it predicts one activation from another (Dunefsky et al. 2024) rather than an activation itself."""
        return is_transcoder(self.architecture)

    @property
    def has_skip(self) -> bool:
        """Whether a matrix leads past the features (Paulo et al. 2025, "Transcoders Beat Sparse Autoencoders")."""
        return has_skip(self.architecture)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by SAELens's name, and its shape."""
        shapes: dict[str, tuple[int, ...]] = {
            "W_enc": (self.d_in, self.d_sae),
            "W_dec": (self.d_sae, self.d_out),
            "b_dec": (self.d_out,),
        }
        of_activation = {
            "relu": ("b_enc",),
            "topk": ("b_enc",),
            "abstopk": ("b_enc",),
            "jumprelu": ("b_enc", "threshold"),
            "gated": ("b_gate", "b_mag", "r_mag"),
        }
        shapes |= dict.fromkeys(of_activation[self.activation], (self.d_sae,))
        if self.has_skip:
            shapes["W_skip"] = (self.d_out, self.d_in)
        return shapes

    def needs(self) -> dict[str, bool]:
        """Return what the model must be loaded with, beyond plain GPT-2: the enabled ``model_from_pretrained_kwargs``.

        ``ValueError`` where the file holds something else.
        """
        asked = self.metadata.get("model_from_pretrained_kwargs") or {}
        if not isinstance(asked, dict):
            raise ValueError(f"model_from_pretrained_kwargs must be an object, got {asked!r:.60}")
        return {str(name): bool(value) for name, value in asked.items() if value}


def is_transcoder(architecture: str) -> bool:
    """Tell whether dictionaries of an architecture read one activation and predict another."""
    return architecture.endswith("transcoder")


def has_skip(architecture: str) -> bool:
    """Tell whether dictionaries of an architecture have a matrix that leads past the features."""
    return "skip" in architecture


def read(fields: JSONObject) -> Config:
    """Return the `Config` in a ``cfg.json`` of any version. ``ValueError`` says what is wrong with it.

    As SAELens 6 does: a file without a version, or of one before 6, has all its fields side by side, some under older
    names (``hook_point``, ``activation_fn_str``), a boolean ``normalize_activations``, and topk as an activation
    function of the standard architecture.
    """
    inside = fields.get("metadata")
    metadata = dict(inside) if isinstance(inside, dict) else {}
    version = fields.get("sae_lens_version") or metadata.get("sae_lens_version")
    if not is_new(version):
        fields, metadata = of_old(fields)
    architecture = fields.get("architecture", "standard")
    if isinstance(architecture, str) and architecture in UNREAD:
        raise ValueError(f"architecture {architecture!r} isn't read here: {UNREAD[architecture]}")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r:.60}")
    if ARCHITECTURES[architecture] == "relu":
        check_activation(fields.get("activation_fn", "relu"))
    hook, hook_out = metadata.get("hook_name"), metadata.get("hook_name_out")
    transcodes = is_transcoder(architecture)
    return Config(
        architecture,
        d_in=fields.get("d_in"),  # type: ignore[arg-type]  # checked there
        d_sae=fields.get("d_sae"),  # type: ignore[arg-type]
        d_out=fields.get("d_out", 768) if transcodes else fields.get("d_in"),  # type: ignore[arg-type]
        hook_name=hook,
        hook_name_out=hook_out if transcodes else hook,
        hook_head_index=metadata.get("hook_head_index"),
        k=fields.get("k", 100) if "topk" in ARCHITECTURES[architecture] else None,
        apply_b_dec_to_input=boolean("apply_b_dec_to_input", fields.get("apply_b_dec_to_input", True)),
        normalize_activations=fields.get("normalize_activations", "none"),
        reshape_activations=fields.get("reshape_activations", "none"),
        rescale_acts_by_decoder_norm=boolean(
            "rescale_acts_by_decoder_norm", fields.get("rescale_acts_by_decoder_norm", False)
        ),
        metadata=MappingProxyType(metadata),
    )


def is_new(version: object) -> bool:
    """Tell whether SAELens 6 or a later version wrote a file."""
    head = str(version).split(".")[0] if version else ""
    return head.isdecimal() and int(head[:4]) >= 6


def of_old(fields: JSONObject) -> tuple[JSONObject, JSONObject]:
    """Return the fields of a file from before SAELens 6 under today's names, and its metadata."""
    new = {OLD_NAMES.get(name, name): value for name, value in fields.items()}
    hook = new.get("hook_name")
    new.setdefault("reshape_activations", "hook_z" if isinstance(hook, str) and "hook_z" in hook else "none")
    function, arguments = new.get("activation_fn", "relu"), new.get("activation_fn_kwargs") or {}
    if function == "topk" and isinstance(arguments, dict) and arguments.get("k") is not None:
        new |= {"architecture": "topk", "k": arguments["k"]}
    normalises = new.get("normalize_activations")
    if normalises is None or isinstance(normalises, bool):
        new["normalize_activations"] = "expected_average_only_in" if normalises else "none"
    return new, {name: new[name] for name in METADATA if new.get(name) is not None}


def check_activation(function: object) -> None:
    """Raise ``ValueError`` for an activation function that SAELens 6 doesn't support, and would treat as ReLU."""
    if function != "relu":
        raise ValueError(
            f"activation_fn must be 'relu', or 'topk' with a k in activation_fn_kwargs, got {function!r:.60}"
        )


def whole(name: str, value: object, least: int, most: int) -> None:
    """Raise ``ValueError`` for anything but an integer in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number between {least} and {most}, got {value!r:.60}")


def boolean(name: str, value: object) -> bool:
    """Return a boolean field. ``ValueError`` for any other value."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r:.60}")
    return value


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r:.60}")
