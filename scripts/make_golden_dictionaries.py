"""Write small dictionaries of every architecture with SAELens, and SAELens's results for them.

    pip install torch sae-lens && python scripts/make_golden_dictionaries.py tests/golden

The dictionaries have random weights, a width of 12 and 40 features. Each is written by SAELens's save_model or
save_inference_model, or has the configuration of an older version. The content of its folder is packed into
``dictionaries.json`` (``cfg.json``) and ``dictionaries.safetensors`` (``FOLDER/TENSOR``), with SAELens's results for
some activations (``FOLDER:NAME``): their features, the reconstruction, and the gradient of half the sum of its squares.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

D, F, OUT = 12, 40, 10
HOOK, HOOK_Z = "blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"


def randomised(sae: Any, seed: int) -> Any:
    """The same with random weights of every kind, and directions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "log_threshold":
                parameter.copy_(noise * 0.3 - 1)
            elif name == "threshold":
                parameter.copy_(noise.abs() * 0.6)
            else:
                parameter.copy_(noise * (0.4 if parameter.ndim > 1 else 0.2))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold = torch.tensor(0.9, dtype=torch.double)
    return sae


def metadata(hook: str = HOOK, **more: Any) -> Any:
    from sae_lens.saes.sae import SAEMetadata

    return SAEMetadata(model_name="gpt2-small", hook_name=hook, prepend_bos=True, context_size=16, **more)


def kinds() -> dict[str, tuple[Any, str]]:
    """Each folder's name: the dictionary, and the method that writes it."""
    import sae_lens as s

    base: dict[str, Any] = {"d_in": D, "d_sae": F, "metadata": metadata()}
    across = base | {"d_out": OUT, "apply_b_dec_to_input": False}
    across["metadata"] = metadata("blocks.1.ln2.hook_normalized", hook_name_out="blocks.1.hook_mlp_out")
    split = base | {"metadata": metadata(HOOK_Z), "reshape_activations": "hook_z"}
    train = base | {"k": 4}
    return {
        "standard": (s.StandardSAE(s.StandardSAEConfig(**base)), "save_model"),
        "standard_plain": (s.StandardSAE(s.StandardSAEConfig(**base | {"apply_b_dec_to_input": False})), "save_model"),
        "standard_rescale": (
            s.StandardSAE(s.StandardSAEConfig(**base | {"normalize_activations": "constant_norm_rescale"})),
            "save_model",
        ),
        "standard_z": (s.StandardSAE(s.StandardSAEConfig(**split)), "save_model"),
        "topk": (s.TopKSAE(s.TopKSAEConfig(**base, k=5)), "save_model"),
        "topk_norms": (s.TopKSAE(s.TopKSAEConfig(**base, k=5, rescale_acts_by_decoder_norm=True)), "save_model"),
        "topk_layer_norm": (
            s.TopKSAE(s.TopKSAEConfig(**base | {"normalize_activations": "layer_norm"}, k=5)),
            "save_model",
        ),
        "abstopk": (s.AbsTopKSAE(s.AbsTopKSAEConfig(**base, k=5)), "save_model"),
        "jumprelu": (s.JumpReLUSAE(s.JumpReLUSAEConfig(**base)), "save_model"),
        "jumprelu_layer_norm": (
            s.JumpReLUSAE(s.JumpReLUSAEConfig(**base | {"normalize_activations": "layer_norm"})),
            "save_model",
        ),
        "gated": (s.GatedSAE(s.GatedSAEConfig(**base)), "save_model"),
        "batchtopk": (s.BatchTopKTrainingSAE(s.BatchTopKTrainingSAEConfig(**train)), "save_inference_model"),
        "batchtopk_checkpoint": (s.BatchTopKTrainingSAE(s.BatchTopKTrainingSAEConfig(**train)), "save_model"),
        "matryoshka_checkpoint": (
            s.MatryoshkaBatchTopKTrainingSAE(
                s.MatryoshkaBatchTopKTrainingSAEConfig(**train, matryoshka_widths=[10, F])
            ),
            "save_model",
        ),
        "jumprelu_checkpoint": (s.JumpReLUTrainingSAE(s.JumpReLUTrainingSAEConfig(**base)), "save_model"),
        "topk_checkpoint": (s.TopKTrainingSAE(s.TopKTrainingSAEConfig(**train)), "save_model"),
        "transcoder": (s.Transcoder(s.TranscoderConfig(**across)), "save_model"),
        "transcoder_layer_norm": (
            s.Transcoder(s.TranscoderConfig(**across | {"normalize_activations": "layer_norm"})),
            "save_model",
        ),
        "skip_transcoder": (s.SkipTranscoder(s.SkipTranscoderConfig(**across)), "save_model"),
        "jumprelu_transcoder": (s.JumpReLUTranscoder(s.JumpReLUTranscoderConfig(**across)), "save_model"),
        "jumprelu_skip_transcoder": (s.JumpReLUSkipTranscoder(s.JumpReLUSkipTranscoderConfig(**across)), "save_model"),
    }


# Configurations of versions before 6, over the weights of one of the above: its folder's name, and the fields.
OLD: dict[str, tuple[str, dict[str, Any]]] = {
    "old_standard": (
        "standard",
        {"hook_point": HOOK, "hook_point_layer": 1, "hook_point_head_index": None, "d_in": D, "d_sae": F}
        | {"dtype": "torch.float32", "normalize_activations": False, "activation_fn_str": "relu"},
    ),
    "old_topk": (
        "topk_layer_norm",
        {"architecture": "standard", "hook_name": HOOK, "d_in": D, "d_sae": F, "dtype": "float32"}
        | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}, "normalize_activations": "layer_norm"}
        | {"sae_lens_training_version": "3.5.0"},
    ),
    "old_z": (
        "standard_z",
        {"hook_point": HOOK_Z, "d_in": D, "d_sae": F, "dtype": "float32", "finetuning_scaling_factor": False},
    ),
    "old_gated": (
        "gated",
        {"architecture": "gated", "hook_name": HOOK, "d_in": D, "d_sae": F, "dtype": "float32"}
        | {"apply_b_dec_to_input": True, "sae_lens_version": "5.10.3", "model_name": "gpt2-small"},
    ),
}


def as_used(folder: Path, trained: Any, method: str, scratch: Path) -> Any:
    """Return the dictionary that SAELens encodes with: the folder as it loads it, or a training checkpoint as it saves
    it for use.
    """
    from sae_lens import SAE

    if method == "save_model" and not hasattr(trained, "save_inference_model"):
        return SAE.load_from_disk(folder)
    trained.save_inference_model(scratch)
    return SAE.load_from_disk(scratch)


def expected(sae: Any, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Activations, features, reconstruction, and the gradient of half the sum of the reconstruction's squares."""
    x = x.clone().requires_grad_()
    features = sae.encode(x)
    out = sae.decode(features)
    whole = sae(x)
    (whole.square().sum() / 2).backward()
    assert x.grad is not None
    found = {"x": x, "features": features, "decoded": out, "reconstruction": whole, "gradient": x.grad}
    return {name: array.detach().numpy().copy() for name, array in found.items()}


def written(root: Path) -> dict[str, dict[str, np.ndarray]]:
    """Folders with a dictionary each, and what SAELens makes of the activations with each."""
    from sae_lens import SAE

    generator = torch.Generator().manual_seed(7)
    x = torch.randn((2, 6, D), generator=generator) * 1.5 + 0.3
    made = {}
    for seed, (name, (sae, method)) in enumerate(kinds().items()):
        randomised(sae, seed)
        getattr(sae, method)(root / name)
        sae.eval()
        used = as_used(root / name, sae, method, root / "for use")
        made[name] = expected(used, x.reshape(2, 6, 3, 4) if used.cfg.reshape_activations == "hook_z" else x)
    for name, (weights, fields) in OLD.items():
        folder = root / name
        folder.mkdir()
        (folder / "cfg.json").write_text(json.dumps(fields))
        (folder / "sae_weights.safetensors").write_bytes((root / weights / "sae_weights.safetensors").read_bytes())
        used = SAE.load_from_disk(folder)
        made[name] = expected(used, x.reshape(2, 6, 3, 4) if used.cfg.reshape_activations == "hook_z" else x)
    return made


def main(out: str) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        tensors = {f"{name}:{what}": x for name, all_ in written(root).items() for what, x in all_.items()}
        names = sorted({name.partition(":")[0] for name in tensors})
        for name in names:
            tensors |= {f"{name}/{key}": x for key, x in load_file(root / name / "sae_weights.safetensors").items()}
        configs = {name: json.loads((root / name / "cfg.json").read_text()) for name in names}
    import sae_lens

    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in configs.items())
    Path(out, "dictionaries.json").write_text(f"{{\n{lines}\n}}\n")
    save_file(tensors, Path(out, "dictionaries.safetensors"), {"source": f"SAELens {sae_lens.__version__}"})
    print(f"{out}: {len(names)} dictionaries")


if __name__ == "__main__":
    main(*sys.argv[1:])
