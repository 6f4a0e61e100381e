"""Descriptions of folders without a ``model.safetensors``: what they hold instead, with a suggestion."""

from __future__ import annotations

import re
from pathlib import Path

HOW_TO_CONVERT = (
    'convert it where torch is installed: python -c "from transformers import GPT2LMHeadModel as M; '
    "M.from_pretrained('FOLDER').save_pretrained('FOLDER')\""
)
PICKLED = f"pickle files are never opened; {HOW_TO_CONVERT}"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
VARIANT = re.compile(r"model\.(?!safetensors$)([^.]+)\.safetensors|model\.safetensors\.index\.([^.]+)\.json")
# Files that training leaves beside a model: no weights.
OF_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|trainer_state).*")
# By the end of a name, the likeliest first: what the file is, and what to do.
KINDS = (
    (".bin", PICKLED),
    (".pt", PICKLED),
    (".pth", PICKLED),
    (".ckpt", PICKLED),
    (".ckpt.index", f"that is TensorFlow's format; {HOW_TO_CONVERT}"),
    (".gguf", "that is llama.cpp's format; take the checkpoint that it was made from"),
    (".onnx", "that is an ONNX graph; take the checkpoint that it was exported from"),
    (".h5", f"that is TensorFlow's format; {HOW_TO_CONVERT}"),
    (".msgpack", f"that is Flax's format; {HOW_TO_CONVERT}"),
    (".npz", "that is NumPy's format; save the tensors with safetensors.numpy.save_file, by their official names"),
    (".tflite", "that is a TensorFlow Lite graph; take the checkpoint that it was converted from"),
    (".ot", "that is the format of rust-bert; take the checkpoint that it was converted from"),
)


def instead(folder: Path) -> str:
    """Describe, in one line, the weights in a folder without a ``model.safetensors``, and what to do about them."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"{folder} holds no model.safetensors: it can't be listed ({error.strerror})"
    if "model.safetensors" in names:
        return f"{folder}: model.safetensors must be a file, and is not"
    for name in names:
        if found := VARIANT.fullmatch(name):
            variant = found[1] or found[2]
            return (
                f"{folder} holds {name} but no model.safetensors; that is the variant {variant!r} of the weights: "
                f"rename its files to the names without .{variant}"
            )
        if SHARD.fullmatch(name):
            return f"{folder} holds the shard {name} but no model.safetensors.index.json, which names all shards"
    if "adapter_model.safetensors" in names or "adapter_model.bin" in names:
        return (
            f"{folder} holds an adapter (adapter_model) but no model.safetensors; merge it into its base model with "
            "peft's merge_and_unload() and save that"
        )
    others = [name for name in names if not OF_TRAINING.fullmatch(name)]
    for end, words in KINDS:
        for name in others:
            if name.endswith(end) or (end == ".ckpt" and ".ckpt" in name and not name.endswith(".index")):
                return f"{folder} holds {name} but no model.safetensors; {words}"
    for name in others:
        if name.endswith(".safetensors"):
            return f"{folder} holds {name} but no model.safetensors; if those are the weights, rename the file"
    return f"{folder} holds no model.safetensors"
