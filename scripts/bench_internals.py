"""Measure time and memory of capturing everything: `run_with_cache` here and in TransformerLens, on the CPU.

    python scripts/bench_internals.py [--transformer-lens-python tl/bin/python] [--tokens 512]
    python scripts/bench_internals.py --gradients [--transformer-lens-python tl/bin/python] [--tokens 512]
    python scripts/bench_internals.py --attribution [--transformer-lens-python tl/bin/python] [--tokens 20]
    python scripts/bench_internals.py --commands [--model FOLDER]

--gradients measures a run forwards and backwards that leaves every activation and its gradient: `run_with_gradients`
here, and TransformerLens's own caching hooks, forward and backward, on the loss that it returns.

--attribution measures what each method of attribution costs for a pair of prompts, in units of a captured run of one of
them: both take turns in one process, and the median ratio is printed next to the cost that is allowed. It also measures
how long exact patching of every node of the bundled model takes. If TransformerLens is installed, its attribution
patching by node and by edge is compared with ours for the same nodes and edges, in processes that take turns.
--cpu-time counts the work of one thread, which is meaningful even if processes have to wait.

--commands measures the commands that look inside from start to end, each in a process of its own, in seconds and in
peak memory, next to the limits. FOLDER is a model of GPT-2 small's shape with a tokenizer of its own (the random one
has a word for each token).

A randomly initialised model of GPT-2 small's shape (124M parameters) is saved once. Each library then loads it in a
process of its own, in turns, and captures every activation of one prompt. The script prints the seconds of the best
run, and by how much the process's peak memory rose above its memory after a run of three tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from internals_commands import commands

LIBRARIES = ("gpt2_np", "TransformerLens")

OURS = """
from gpt2_np.session.model import Model
model = Model.from_pretrained(folder)
def plain(): model.run_with_cache(ids[:, :3])  # reads the weights that observed runs read: the file, not a packed copy
def capture(): return len(model.run_with_cache(ids)[1])
"""

THEIRS = """
import torch
from transformer_lens.model_bridge import TransformerBridge
torch.set_grad_enabled(False)
model = TransformerBridge.boot_transformers(folder, device="cpu")
model.enable_compatibility_mode(no_processing=True)
tokens = torch.tensor(ids)
def plain(): model(tokens[:, :3])
def capture(): return len(model.run_with_cache(tokens)[1])
"""
OUR_GRADIENTS = (
    OURS.rsplit("def plain", 1)[0]
    + """
from gpt2_np.gradients import cross_entropy
def plain(): model.run_with_gradients(ids[:, :3], cross_entropy())
def capture(): return len(model.run_with_gradients(ids, cross_entropy()).grads)
"""
)

THEIR_GRADIENTS = (
    THEIRS.rsplit("def plain", 1)[0].replace("torch.set_grad_enabled(False)\n", "")
    + """
for one in model.parameters(): one.requires_grad_(False)
model.embed.hook_out.register_forward_hook(lambda module, args, out: out.requires_grad_())
def everything(tokens):
    loss, cache = model.run_with_cache(tokens, incl_bwd=True, return_type="loss")
    return sum(name.endswith("_grad") for name in cache)
def plain(): everything(tokens[:, :3])
def capture(): return everything(tokens)
"""
)

MEASURE = """
import json, os, sys, time
import numpy as np
clock = time.process_time if os.environ.get("CPU_TIME") else time.perf_counter
folder, T = sys.argv[1], int(sys.argv[2])
ids = np.random.default_rng(0).integers(0, 50257, (1, T))
{setup}
def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
plain()
open("/proc/self/clear_refs", "w").write("5")   # forget the peak so far
before, seconds = status("VmRSS"), []
for _ in range(int(sys.argv[3])):
    start = clock()
    count = capture()
    seconds.append(clock() - start)
peak = status("VmHWM")
found = {{"seconds": min(seconds), "activations": count, "peak_mib": peak - before, "whole_mib": peak}}
print(json.dumps(found))
"""


def save_random_model(folder: Path) -> None:
    """GPT-2 small's shapes, random values, and a tokenizer that nobody asks anything."""
    import numpy as np
    from safetensors.numpy import save_file

    from gpt2_np.model.config import PUBLISHED
    from gpt2_np.model.params import shapes

    config, rng = PUBLISHED["gpt2"], np.random.default_rng(0)
    tensors = {
        name: rng.normal(
            1.0 if name.split(".")[-2].startswith("ln_") and name.endswith("weight") else 0.0, 0.02, shape
        ).astype(np.float32)
        for name, shape in shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    about = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 50256, "eos_token_id": 50256}
    (folder / "config.json").write_text(json.dumps(about))
    vocabulary = {f"<{number}>": number for number in range(config.vocab_size)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<0>"}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    split = {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    about_words = {"version": "1.0", "added_tokens": [], "model": model} | empty | split
    (folder / "tokenizer.json").write_text(json.dumps(about_words))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<50256>", "bos_token": "<50256>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def measure(python: str, setup: str, folder: Path, tokens: int, turns: int = 8) -> dict[str, float]:
    """The best of some turns in a process of its own, and by how much its memory's peak rose meanwhile."""
    command = [python, "-c", MEASURE.format(setup=setup), str(folder), str(tokens), str(turns)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


ATTRIBUTION = """
import json, os, sys, time
import numpy as np
clock = time.process_time if os.environ.get("CPU_TIME") else time.perf_counter
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution
from gpt2_np.session.model import Model
model = Model.from_pretrained(sys.argv[1])
T, rounds = int(sys.argv[2]), int(sys.argv[3])
clean = np.random.default_rng(0).integers(0, 50257, T)
corrupted = clean.copy()
corrupted[[T // 4, T // 2]] = [7, 99]
metric, L = logit_difference(4, 11), model.config.n_layer
most = {
    "captured run": (lambda: model.run_with_cache(clean), 1),
    "nodes, atp": (lambda: attribution.nodes(model, clean, corrupted, metric, "atp"), 5),
    "nodes, relp": (lambda: attribution.nodes(model, clean, corrupted, metric, "relp"), 5),
    "nodes, atp*": (lambda: attribution.nodes(model, clean, corrupted, metric, "atp*"), 2 * L + 8),
    "edges, eap": (lambda: attribution.edges(model, clean, corrupted, metric, "eap"), 8),
    "edges, eap-ig of 5 steps": (lambda: attribution.edges(model, clean, corrupted, metric, "eap-ig"), 30),
}
seconds = {name: [] for name in most}
for _ in range(rounds + 1):  # the first round warms up
    for name, (work, _) in most.items():
        start = clock()
        work()
        seconds[name].append(clock() - start)
plain = np.array(seconds["captured run"][1:])
for name, (_, limit) in most.items():
    own = np.array(seconds[name][1:])
    row = {"name": name, "seconds": float(np.median(own)), "runs": float(np.median(own / plain)), "most": limit}
    print(json.dumps(row))
"""


EXACT = """
import json, os, sys, time
import numpy as np
clock = time.process_time if os.environ.get("CPU_TIME") else time.perf_counter
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution
from gpt2_np.session.model import Model
model = Model.from_pretrained("tales", backend="numpy")
T = int(sys.argv[1])
clean = np.random.default_rng(0).integers(1, model.config.vocab_size, T)
corrupted = clean.copy()
corrupted[[T // 4, T // 2]] = [7, 99]
names = [f"blocks.*.{point}" for point in ("resid_pre", "attn_out", "mlp_out", "attn.z")]
runs = []
start = clock()
attribution.exact_nodes(model, clean, corrupted, logit_difference(4, 11), names=names, progress=runs.append)
print(json.dumps({"seconds": clock() - start, "runs": sum(runs)}))
"""

PAIR = """
clean = ids[0]
corrupted = clean.copy()
corrupted[[T // 4, T // 2]] = [7, 99]
"""

OUR_NODES = (
    OURS.rsplit("def capture", 1)[0]
    + PAIR
    + """
from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution
metric = logit_difference(4, 11)
def capture():
    names = ["embed", "*.attn.z", "*.mlp_out"]
    return sum(x.size for x in attribution.nodes(model, clean, corrupted, metric, names=names).scores.values())
"""
)
OUR_EDGES = (
    OUR_NODES.rsplit("def capture", 1)[0]
    + """
def capture(): return int(attribution.graph.there(model.config).sum()) * bool(
    attribution.edges(model, clean, corrupted, metric).scores.any())
"""
)
THEIR_NODES = (
    THEIRS.rsplit("def capture", 1)[0].replace("torch.set_grad_enabled(False)\n", "")
    + PAIR
    + """
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch
sides = [torch.tensor(x[None]) for x in (clean, corrupted)]
metric = lambda logits: logits[0, -1, 4] - logits[0, -1, 11]
def capture(): return len(attribution_patch(model, *sides, metric).node_scores)
"""
)
THEIR_EDGES = (
    THEIR_NODES.rsplit("def capture", 1)[0]
    + """
def capture():
    found = attribution_patch(model, *sides, metric, EdgeAttributionConfig(granularity="edge"))
    return len(found.edge_scores) // T
"""
)


def beside(python: str, folder: Path, tokens: int, rounds: int) -> None:
    """Print TransformerLens's attribution patching beside ours: the best seconds, and the peak above the model."""
    kinds = {"nodes": (OUR_NODES, THEIR_NODES), "edges": (OUR_EDGES, THEIR_EDGES)}
    for kind, setups in kinds.items():
        best: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            for library, interpreter, setup in zip(LIBRARIES, (sys.executable, python), setups, strict=True):
                found = measure(interpreter, setup, folder, tokens, 3)
                if library not in best or found["seconds"] < best[library]["seconds"]:
                    best[library] = found
        for library, found in best.items():
            print(
                f"{kind}, {library:<16} {found['seconds']:7.3f} s   peak {found['peak_mib']:6,.0f} MiB above, "
                f"{found['whole_mib']:,.0f} of the process, {found['activations']:,} scores",
                flush=True,
            )


def attribution(folder: Path, tokens: int, rounds: int) -> None:
    """Print what each method costs."""
    command = [sys.executable, "-c", ATTRIBUTION, str(folder), str(tokens), str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        row = json.loads(line)
        print(
            f"{row['name']:<26} {row['seconds']:7.3f} s   {row['runs']:5.1f} captured runs, at most {row['most']}",
            flush=True,
        )
    done = subprocess.run([sys.executable, "-c", EXACT, str(tokens)], check=True, capture_output=True, text=True)
    row = json.loads(done.stdout.splitlines()[-1])
    print(
        f"exact nodes of the bundled model: {row['runs']:,} runs of {tokens} tokens, {row['seconds']:.1f} s", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--transformer-lens-python", help="the interpreter of an environment with transformer_lens 4")
    parser.add_argument("--tokens", type=int, help="of a prompt; 512 unless given, for --attribution 20")
    parser.add_argument("--gradients", action="store_true", help="a run that leaves every gradient as well")
    parser.add_argument("--attribution", action="store_true", help="what attribution costs, in captured runs")
    parser.add_argument("--commands", action="store_true", help="what the commands that look inside take")
    parser.add_argument("--model", type=Path, help="for --commands: a folder in the random model's place")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each library, by turns")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of one thread's own work, for a busy machine")
    arguments = parser.parse_args()
    if arguments.cpu_time:  # the processes that are started inherit both
        os.environ |= {"CPU_TIME": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        if arguments.commands:
            if arguments.model is None:
                save_random_model(Path(name))
            commands(arguments.model or Path(name), Path(name), arguments.rounds)
            return
        save_random_model(Path(name))
        if arguments.attribution:
            attribution(Path(name), arguments.tokens or 20, arguments.rounds)
            if arguments.transformer_lens_python:
                beside(arguments.transformer_lens_python, Path(name), arguments.tokens or 20, arguments.rounds)
            return
        ours, theirs = (OUR_GRADIENTS, THEIR_GRADIENTS) if arguments.gradients else (OURS, THEIRS)
        libraries = [(LIBRARIES[0], sys.executable, ours)]
        if arguments.transformer_lens_python:
            libraries.append((LIBRARIES[1], arguments.transformer_lens_python, theirs))
        best: dict[str, dict[str, float]] = {}
        for _ in range(arguments.rounds):  # by turns, so that a slow minute of the machine hits both
            for library, python, setup in libraries:
                result = measure(python, setup, Path(name), arguments.tokens or 512)
                if library not in best or result["seconds"] < best[library]["seconds"]:
                    best[library] = result
        for library, result in best.items():
            print(
                f"{library:<16} {result['seconds']:.2f} s   peak {result['peak_mib']:,.0f} MiB above the model, "
                f"{result['whole_mib']:,.0f} of the process, {result['activations']} activations",
                flush=True,
            )


if __name__ == "__main__":
    main()
