"""The same weights in the other engines' formats."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def token_name(token: int) -> str:
    """What stands for an id in a vocabulary of no meaning: these models are of random weights."""
    return "<|endoftext|>" if token == 50256 else f"t{token}"


def with_tokenizer(folder: Path) -> Path:
    """The folder with a vocabulary beside the weights, which converters insist on."""
    if not (folder / "vocab.json").is_file():
        (folder / "merges.txt").write_text("#version: 0.2\n")
        (folder / "vocab.json").write_text(json.dumps({token_name(token): token for token in range(50257)}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    return folder


GGUF_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def gguf(folder: Path, precision: str, scratch: Path | None = None) -> Path:
    """The checkpoint as llama.cpp's file, quantised by llama.cpp itself; beside the checkpoint, or in `scratch`."""
    where = folder if scratch is None else scratch / folder.name
    where.mkdir(parents=True, exist_ok=True)
    path, full = where / f"{precision}.gguf", where / "f32.gguf"
    if not full.is_file():
        write_gguf(folder, full)
    if not path.is_file():
        import llama_cpp

        settings = llama_cpp.llama_model_quantize_default_params()
        settings.nthread = THREADS
        settings.ftype = {"f16": 1, "q4_0": 2, "q8_0": 7}[precision]
        if llama_cpp.llama_model_quantize(str(full).encode(), str(path).encode(), settings):
            raise ValueError(f"llama.cpp could not write {path}")
    return path


def vocabulary(folder: Path, size: int) -> tuple[list[str], list[str]]:
    """The tokenizer's tokens in the order of their ids, and its merges; of no meaning where the folder has none."""
    if not (folder / "merges.txt").is_file():
        return [token_name(token) for token in range(size)], ["t 0"]
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    known = [one for one in merges if one and not one.startswith("#version")]
    return sorted(ids, key=ids.__getitem__), known or ["t 0"]  # llama.cpp wants at least one merge


def write_gguf(folder: Path, path: Path) -> None:
    """The checkpoint as llama.cpp's float32 file."""
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    writer = GGUFWriter(str(path), "gpt2")
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    names, merges = vocabulary(folder, config["vocab_size"])
    end = config.get("eos_token_id", 50256)
    writer.add_token_list(names)
    writer.add_token_types([3 if token == end else 1 for token in range(len(names))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_tensor("token_embd.weight", tensors["wte.weight"])
    writer.add_tensor("position_embd.weight", tensors["wpe.weight"])
    for kind in ("weight", "bias"):
        writer.add_tensor(f"output_norm.{kind}", tensors[f"ln_f.{kind}"])
        for layer in range(config["n_layer"]):
            for ours, theirs in GGUF_NAMES.items():
                tensor = tensors[f"h.{layer}.{ours}.{kind}"]
                writer.add_tensor(f"blk.{layer}.{theirs}.{kind}", np.ascontiguousarray(tensor.T))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
