"""Write the results of SAELens and SAEBench for dictionaries in a small model: spliced runs, gradients, evaluations.

    pip install torch sae-lens tabulate
    PYTHONPATH=path/to/SAEBench python scripts/make_golden_dictionary_runs.py tests/golden

The model is that of ``tests/golden/transformer_lens.safetensors``, the dictionaries have random weights. Without
SAEBench on the path its numbers are left out. The script writes ``dictionary_runs.json`` (configurations and
evaluations) and ``dictionary_runs.safetensors``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_golden_dictionaries import randomised
from safetensors.numpy import load_file, save_file

WIDTH, LAYERS, HEADS, CONTEXT, VOCABULARY = 16, 2, 2, 16, 31
F, SILENT = 48, [3, 7, 11, 20, 33]
BATCHES = 3


def small_model() -> Any:
    """The golden model in SAELens's HookedSAETransformer."""
    from sae_lens import HookedSAETransformer
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "n_positions": CONTEXT,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": HEADS,
    }
    reference = GPT2LMHeadModel(GPT2Config(**shape)).eval()
    tensors = load_file(Path("tests/golden/transformer_lens.safetensors"))
    state = {f"transformer.{n[7:]}": torch.tensor(x) for n, x in tensors.items() if n.startswith("params.")}
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    reference.tie_weights()
    config = HookedTransformerConfig(
        n_layers=LAYERS, d_model=WIDTH, n_ctx=CONTEXT, d_head=WIDTH // HEADS, n_heads=HEADS, d_vocab=VOCABULARY,
        act_fn="gelu_new", normalization_type="LN", device="cpu", tokenizer_name=None,
    )  # fmt: skip
    model = HookedSAETransformer(config)
    converted = convert_gpt2_weights(reference, config)
    converted.setdefault("unembed.b_U", torch.zeros(VOCABULARY))
    model.load_state_dict(converted, strict=False)
    ids = torch.arange(10)[None]
    assert torch.allclose(model(ids), reference(ids).logits, atol=1e-4)
    return model


def dictionaries() -> dict[str, Any]:
    """A dictionary of each kind of place."""
    import sae_lens as s
    from sae_lens.saes.sae import SAEMetadata

    def base(hook: str, width: int = WIDTH, **more: Any) -> dict[str, Any]:
        return {"d_in": width, "d_sae": F, "metadata": SAEMetadata(hook_name=hook, **more)}

    across = base("blocks.0.ln2.hook_normalized", hook_name_out="blocks.0.hook_mlp_out")
    return {
        "resid_pre": s.StandardSAE(s.StandardSAEConfig(**base("blocks.1.hook_resid_pre"))),
        "resid_post": s.TopKSAE(
            s.TopKSAEConfig(**base("blocks.0.hook_resid_post"), k=6, normalize_activations="layer_norm")
        ),
        "resid_mid": s.JumpReLUSAE(
            s.JumpReLUSAEConfig(**base("blocks.1.hook_resid_mid"), normalize_activations="constant_norm_rescale")
        ),
        "mlp_out": s.GatedSAE(s.GatedSAEConfig(**base("blocks.0.hook_mlp_out"))),
        "z": s.TopKSAE(s.TopKSAEConfig(**base("blocks.1.attn.hook_z"), k=6, reshape_activations="hook_z")),
        "one_head": s.JumpReLUSAE(
            s.JumpReLUSAEConfig(**base("blocks.0.attn.hook_q", WIDTH // HEADS, hook_head_index=1))
        ),
        "transcoder": s.Transcoder(s.TranscoderConfig(**across, d_out=WIDTH, apply_b_dec_to_input=False)),
    }


def spliced_runs(model: Any, sae: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits and the gradient of the embedding: with the dictionary, with the error term, with features silenced."""
    found: dict[str, Any] = {}

    def silenced(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x = x.clone()
        x[..., SILENT] = 0
        return x

    for name, error, hooks in (("plain", False, False), ("error", True, False), ("silenced", True, True)):
        model.reset_saes()
        model.add_sae(sae, use_error_term=error)
        kept: dict[str, torch.Tensor] = {}

        def keep(x: torch.Tensor, hook: Any, kept: dict[str, torch.Tensor] = kept) -> torch.Tensor:
            x.retain_grad()
            kept["embed"] = x
            return x

        place = sae.cfg.metadata.hook_name_out or sae.cfg.metadata.hook_name
        through = [(f"{place}.hook_sae_acts_post", silenced)] if hooks else []
        logits = model.run_with_hooks(ids, fwd_hooks=[("hook_embed", keep), *through])
        chosen = logits[:, -1, 5] - logits[:, -1, 9]
        chosen.sum().backward()
        found |= {f"{name}.logits": logits, f"{name}.gradient": kept["embed"].grad}
    model.reset_saes()
    return {name: x.detach() for name, x in found.items()}


class Store:
    """As much of an ActivationsStore as evaluations ask for: batches of ids, the same ones each time."""

    context_size = 12
    store_batch_size_prompts = 4

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids, self.at = ids, 0

    def get_batch_tokens(self, count: int) -> torch.Tensor:
        start = self.at % len(self.ids)
        self.at += count
        return self.ids[start : start + count]

    def reset_input_dataset(self) -> None:
        self.at = 0

    def apply_norm_scaling_factor(self, x: torch.Tensor) -> torch.Tensor:
        return x


def evaluations(model: Any, sae: Any, ids: torch.Tensor, bench: Any) -> dict[str, Any]:
    """SAELens's run_evals, and SAEBench's where it is there."""
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    config = get_eval_everything_config(4, BATCHES, BATCHES)
    found, features = run_evals(sae, Store(ids), model, ActivationScaler(), config, exclude_special_tokens=[0])
    result = {"saelens": found, "density": features["feature_density"]}
    result["consistency"] = features["consistent_activation_heuristic"]
    if bench is not None and sae.cfg.metadata.hook_head_index is None:
        old = types.SimpleNamespace(**vars(sae.cfg))
        old.hook_name, old.hook_head_index = sae.cfg.metadata.hook_name, None
        old.hook_layer = int(old.hook_name.split(".")[1])
        new, sae.cfg = sae.cfg, old  # as SAEBench knew it
        sae.turn_off_forward_pass_hook_z_reshaping()  # as its run_evals does
        try:
            result["saebench"] = bench.get_sparsity_and_variance_metrics(
                sae, model, Store(ids), BATCHES, True, True, True, True, 4, {}, {0}
            )[0]
        finally:
            sae.cfg = new
    return result


def main(out: str) -> None:
    warnings.simplefilter("ignore")
    from sae_lens import SAE

    try:
        import sae_bench.evals.core.main as bench
    except ImportError:
        bench = None
    model = small_model()
    tensors: dict[str, Any] = {}
    told: dict[str, Any] = {}
    ids = torch.tensor(np.random.default_rng(3).integers(0, VOCABULARY, (4 * BATCHES, Store.context_size)))
    for seed, (name, sae) in enumerate(dictionaries().items()):
        randomised(sae, 100 + seed)
        with tempfile.TemporaryDirectory() as folder:
            sae.save_model(folder)
            sae = SAE.load_from_disk(folder)
            told[name] = {"cfg": json.loads((Path(folder) / "cfg.json").read_text())}
            weights = load_file(Path(folder) / "sae_weights.safetensors")
        tensors |= {f"{name}/{key}": x for key, x in weights.items()}
        tensors |= {f"{name}:{key}": x.numpy() for key, x in spliced_runs(model, sae, ids[:2]).items()}
        if name != "transcoder":  # of which SAELens evaluates nothing
            with torch.no_grad():
                told[name] |= evaluations(model, sae, ids, bench)
    import sae_lens

    tensors["ids"] = ids.numpy()
    Path(out, "dictionary_runs.json").write_text(json.dumps({"silent": SILENT, "dictionaries": told}) + "\n")
    save_file(tensors, Path(out, "dictionary_runs.safetensors"), {"source": f"SAELens {sae_lens.__version__}"})
    print(f"{out}: {len(told)} dictionaries, SAEBench {'is' if bench else 'is not'} there")


if __name__ == "__main__":
    main(*sys.argv[1:])
