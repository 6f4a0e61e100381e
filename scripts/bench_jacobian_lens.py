"""Measure time and memory of fitting a Jacobian lens on one text, beside TransformerLens's `JacobianLens.fit`.

    python scripts/bench_jacobian_lens.py --transformer-lens-python tl/bin/python [--model tales] [--tokens 128]

Each library loads the model in a process of its own, in turns, and fits on the same text, cut after --tokens tokens, on
the CPU. The script prints the median seconds of a text, by how much the process's peak memory rose above its memory
with the model loaded, and the largest difference between the matrices of the two results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

OURS = """
from gpt2_np import GPT2
from gpt2_np.internals import jacobian_lens
model = GPT2.from_pretrained(folder, backend="numpy")
def fit(): return jacobian_lens.fit(model, [text], length=T).jacobian
"""

THEIRS = """
import torch, warnings
warnings.filterwarnings("ignore")
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens
model = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32)
encode = model.to_tokens
model.to_tokens = lambda *a, **k: encode(*a, **(k | {"prepend_bos": False}))
def fit():
    lens = JacobianLens.fit(model, [text], corpus="x", max_seq_len=T, dim_batch=int(sys.argv[5]), show_progress=False)
    return np.stack([lens.jacobians[layer].numpy() for layer in sorted(lens.jacobians)])
"""

MEASURE = """
import json, sys, time
import numpy as np
folder, text, T = sys.argv[1], open(sys.argv[2]).read(), int(sys.argv[3])
{setup}
def status(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")   # forget the peak so far
before, start = status("VmRSS"), time.perf_counter()
found = fit()
seconds = time.perf_counter() - start
np.save(sys.argv[4], found)
print(json.dumps({{"seconds": seconds, "peak_mib": status("VmHWM") - before}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer-lens-python", help="the interpreter of an environment with transformer_lens 4.3")
    parser.add_argument("--model", type=Path, help="a folder; the bundled model unless given")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each library, by turns")
    parser.add_argument("--dim-batch", type=int, default=32, help="TransformerLens's rows at a time")
    options = parser.parse_args()
    from gpt2_np import GPT2

    folder = options.model or GPT2.from_pretrained().folder
    libraries = [("gpt2_np", sys.executable, OURS)]
    if options.transformer_lens_python:
        libraries.append(("TransformerLens", options.transformer_lens_python, THEIRS))
    results: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in libraries}
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text"
        text.write_text("The king had three sons, and the youngest went into the wood to find the golden bird. " * 40)
        for _ in range(options.rounds):  # by turns, so that a slow minute of the machine hits both
            for library, python, setup in libraries:
                code = MEASURE.format(setup=setup)
                kept = Path(name) / f"{library}.npy"
                given = [str(folder), str(text), str(options.tokens), str(kept), str(options.dim_batch)]
                done = subprocess.run([python, "-c", code, *given], check=True, capture_output=True, text=True)
                results[library].append(json.loads(done.stdout.splitlines()[-1]))
        for library, runs in results.items():
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = min(run["peak_mib"] for run in runs)
            print(f"{library:<16} {seconds:7.2f} s a text   peak {peak:,.0f} MiB above the model")
        matrices = [np.load(Path(name) / f"{library}.npy") for library in results]
        print(f"the largest difference of an entry: {np.abs(matrices[0] - matrices[-1]).max():.1e}")


if __name__ == "__main__":
    main()
