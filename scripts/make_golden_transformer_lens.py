"""Make tests/golden/transformer_lens.safetensors: TransformerLens 4's results for a tiny random GPT-2.

    python -m venv tl && tl/bin/pip install torch==2.13.0 transformer_lens
    tl/bin/python scripts/make_golden_transformer_lens.py

It needs an environment of its own; the tests need only the file. The file holds the weights ("params."), the ids, every
activation of the model as loaded ("cache.") and after TransformerLens's weight processing ("processed."), and the
results of its cache methods, head scores and patching sweeps on the processed model, and of its attribution patching by
node and by edge on the model as loaded.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models
from transformer_lens import patching
from transformer_lens.head_detector import (
    compute_head_attention_similarity_score,
    get_duplicate_token_head_detection_pattern,
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

V, T = 31, 8
OUT = Path(__file__).parent.parent / "tests" / "golden" / "transformer_lens.safetensors"


def reference() -> GPT2LMHeadModel:
    """A tiny GPT-2 in which no parameter is at its neutral value."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            parameter.normal_(centre, 0.3 if "wte" in name or "wpe" in name else 0.2)
    return model.eval()


def boot(folder: str, **settings: bool) -> TransformerBridge:
    """The model in TransformerLens, with its weights processed or not."""
    bridge = TransformerBridge.boot_transformers(folder, device="cpu")
    bridge.enable_compatibility_mode(**settings)
    return bridge


def plain(tensor: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def activations(bridge: TransformerBridge, ids: torch.Tensor, prefix: str) -> dict[str, np.ndarray]:
    """Every activation, and the logits, under a prefix."""
    logits, cache = bridge.run_with_cache(ids)
    kept = {
        f"{prefix}.{name}": plain(value)
        for name, value in cache.items()
        if value.is_floating_point() and value.shape[0] == ids.shape[0]
    }
    return kept | {f"{prefix}.logits": plain(logits)}


def methods(bridge: TransformerBridge, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the results of ActivationCache's methods, with most of their options."""
    _, cache = bridge.run_with_cache(ids)
    heads = cache.stack_head_results(layer=-1)
    wrong = (ids[:, 1:] + 1) % V
    return {
        name: plain(value)
        for name, value in {
            "accumulated": cache.accumulated_resid(incl_mid=True),
            "accumulated_ln": cache.accumulated_resid(apply_ln=True),
            "accumulated_layer_1": cache.accumulated_resid(layer=1, mlp_input=True, apply_ln=True),
            "decomposed": cache.decompose_resid(),
            "decomposed_ln_last": cache.decompose_resid(apply_ln=True, pos_slice=-1),
            "decomposed_mlp_input": cache.decompose_resid(layer=1, mlp_input=True, apply_ln=True),
            "decomposed_attn": cache.decompose_resid(mode="attn"),
            "heads": heads,
            "heads_remainder": cache.stack_head_results(incl_remainder=True, apply_ln=True),
            "neurons": cache.stack_neuron_results(layer=-1, neuron_slice=(3, 9), incl_remainder=True),
            "neurons_ln": cache.stack_neuron_results(layer=1, neuron_slice=(3, 9), apply_ln=True, mlp_input=True),
            "neurons_projected": cache.stack_neuron_results(
                layer=-1, apply_ln=True, incl_remainder=True, project_output_onto=bridge.W_U[:, 5]
            ),
            "full": cache.get_full_resid_decomposition(expand_neurons=True),
            "full_mlps_ln": cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True),
            "attrs": cache.logit_attrs(cache.decompose_resid(), 7),
            "attrs_difference": cache.logit_attrs(
                heads[:, :, :-1], ids[:, 1:], incorrect_tokens=wrong, pos_slice=(0, T - 1)
            ),
            "attrs_per_row": cache.logit_attrs(heads, ids[:, 3]),
        }.items()
    }


def head_scores(bridge: TransformerBridge, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """head_detector's three scores on one text of ids."""
    _, cache = bridge.run_with_cache(ids)
    kinds = {
        "previous_token": get_previous_token_head_detection_pattern,
        "induction": get_induction_head_detection_pattern,
        "duplicate_token": get_duplicate_token_head_detection_pattern,
    }
    scores = {}
    for name, detection in kinds.items():
        for measure in ("mul", "abs"):
            scores[f"{name}.{measure}"] = np.array(
                [
                    [
                        compute_head_attention_similarity_score(
                            cache["pattern", layer][0, head],
                            detection_pattern=detection(ids),
                            exclude_bos=measure == "mul",
                            exclude_current_token=False,
                            error_measure=measure,
                        )
                        for head in range(2)
                    ]
                    for layer in range(2)
                ],
                np.float32,
            )
    return scores


def patches(bridge: TransformerBridge, clean: torch.Tensor, corrupted: torch.Tensor) -> dict[str, np.ndarray]:
    """Sweeps of activation patching: the last position's logit difference of ids 5 and 9."""
    _, cache = bridge.run_with_cache(clean)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[:, -1, 5] - logits[:, -1, 9]).mean()

    sweeps = {
        "resid_pre": patching.get_act_patch_resid_pre,
        "resid_mid": patching.get_act_patch_resid_mid,
        "attn_out": patching.get_act_patch_attn_out,
        "mlp_out": patching.get_act_patch_mlp_out,
        "z": patching.get_act_patch_attn_head_out_all_pos,
        "q": patching.get_act_patch_attn_head_q_all_pos,
        "v": patching.get_act_patch_attn_head_v_all_pos,
        "pattern": patching.get_act_patch_attn_head_pattern_all_pos,
        "z_by_position": patching.get_act_patch_attn_head_out_by_pos,
    }
    results = {name: plain(torch.as_tensor(sweep(bridge, corrupted, cache, metric))) for name, sweep in sweeps.items()}
    _, before = bridge.run_with_cache(corrupted)
    return results | {
        f"direct_path.{kind}": plain(
            patching.get_act_patch_direct_path_all_sources(
                bridge, corrupted, cache, before, metric, kind, verbose=False
            )
        )
        for kind in "qkv"
    }


def attributions(bridge: TransformerBridge, clean: torch.Tensor, corrupted: torch.Tensor) -> dict[str, np.ndarray]:
    """Attribution patching of the same metric: by node, and by edge summed over positions, (senders, receivers).

    Senders are in the order embed, layer 0's heads, its MLP, …; receivers layer 0's queries, keys and values by head,
    its MLP, …, the logits.
    """

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, 5] - logits[0, -1, 9]

    L, H = bridge.cfg.n_layers, bridge.cfg.n_heads
    length = clean.shape[1]
    found = {"embed": np.zeros(length), "z": np.zeros((L, length, H)), "mlp_out": np.zeros((L, length))}
    edges = np.zeros((1 + L * (H + 1), L * (3 * H + 1) + 1))
    with torch.enable_grad():
        nodes = attribution_patch(bridge, clean, corrupted, metric)
        by_edge = attribution_patch(bridge, clean, corrupted, metric, EdgeAttributionConfig(granularity="edge"))
    node: Any  # which of layer and head it has depends on its kind
    writer: Any
    reader: Any
    for node, score in nodes.node_scores.items():
        if node.kind == "embed":
            found["embed"][node.position] = score
        elif node.kind == "mlp_out":
            found["mlp_out"][node.layer, node.position] = score
        else:
            found["z"][node.layer, node.position, node.head] = score
    for (writer, reader), score in by_edge.edge_scores.items():
        sender = (
            0 if writer.kind == "embed" else 1 + writer.layer * (H + 1) + (H if writer.head is None else writer.head)
        )
        if reader.kind == "logits":
            receiver = edges.shape[1] - 1
        else:
            place = 3 * H if reader.kind == "mlp_in" else "qkv".index(reader.kind[0]) * H + reader.head
            receiver = reader.layer * (3 * H + 1) + place
        edges[sender, receiver] += score
    return {name: x.astype(np.float32) for name, x in {**found, "edges": edges}.items()}


def main() -> None:
    model = reference()
    ids = torch.randint(0, V, (2, T))
    clean, corrupted = torch.randint(0, V, (2, 1, T))
    repeated = torch.randint(0, V, (1, T // 2)).repeat(1, 2)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(V)}, unk_token="<0>"))
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<0>", bos_token="<0>").save_pretrained(folder)
        loaded, processed = boot(folder, no_processing=True), boot(folder)
        golden = {
            f"params.{name.removeprefix('transformer.')}": plain(value)
            for name, value in model.state_dict().items()
            if name != "lm_head.weight"
        }
        golden |= activations(loaded, ids, "cache") | activations(processed, ids, "processed")
        golden |= {f"method.{name}": value for name, value in methods(processed, ids).items()}
        golden |= {f"head.{name}": value for name, value in head_scores(loaded, repeated).items()}
        golden |= {f"composition.{kind}": plain(processed.all_composition_scores(kind).scores) for kind in "QKV"}
        golden |= {f"patch.{name}": value for name, value in patches(loaded, clean, corrupted).items()}
        golden |= {f"atp.{name}": value for name, value in attributions(loaded, clean, corrupted).items()}
    golden |= {"ids": ids.numpy(), "clean": clean.numpy(), "corrupted": corrupted.numpy(), "repeated": repeated.numpy()}
    OUT.parent.mkdir(exist_ok=True)
    save_file(golden, OUT)
    print(f"{OUT}: {len(golden)} tensors, {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
