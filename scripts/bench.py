"""How fast it is: tokens/s, GB/s and the share of what this machine can do, beside transformers on torch, in one run.

    python scripts/bench.py                       the table, for the 124M shape and the bundled model
    python scripts/bench.py --readme              the same, written into the README
    python scripts/bench.py --json out/bench.json --plot out/bench.png --sizes gpt2 gpt2-medium

Checkpoints of the published shapes are made of random weights in --scratch: speed doesn't depend on their values.
Medians of repeated runs; ours and torch's alternate where they are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba import prange
from safetensors.numpy import save_file

from decoders import Options
from decoders.pipeline import apply, build
from decoders.sampling import sampler
from gpt2_np import GPT2
from gpt2_np.config import PUBLISHED
from gpt2_np.params import flatten, shapes

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["gpt2"], choices=PUBLISHED, help="published shapes to measure")
    parser.add_argument("--scratch", type=Path, default=Path("out/bench"), help="where random checkpoints are kept")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="draw cost against size, position and batch here (matplotlib)")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    options = parser.parse_args()
    rows, curves = [*machine()], {}
    for size in options.sizes:
        folder = checkpoint(size, options.scratch)
        rows += measure(size, folder, bound=float(rows[0]["value"]), gemm=float(rows[1]["value"]))
        curves[size] = cost_curves(folder)
    rows += bundled()
    table = markdown(rows)
    print(table)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": name(), "rows": rows, "curves": curves}, indent=1) + "\n")
    if options.plot is not None:
        plot(curves, options.plot)
    if options.readme:
        readme = Path(__file__).parent.parent / "README.md"
        before, _, rest = readme.read_text().partition("<!-- speed -->")
        after = rest.partition("<!-- end of speed -->")[2]
        readme.write_text(f"{before}<!-- speed -->\n{table}\n<!-- end of speed -->{after}")


def median(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the median run, after one that isn't counted."""
    run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def name() -> str:
    """The machine, in words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    return f"{cpu}, {numba.get_num_threads()} threads, {platform.system()}, Python {platform.python_version()}"


@numba.njit(parallel=True, fastmath=True)
def _read(x: np.ndarray, out: np.ndarray) -> None:
    for part in prange(len(out)):
        s0 = s1 = s2 = s3 = np.float32(0)
        for row in range(part * len(x) // len(out), (part + 1) * len(x) // len(out) - 3, 4):
            for i in range(x.shape[1]):
                s0 += x[row, i]
                s1 += x[row + 1, i]
                s2 += x[row + 2, i]
                s3 += x[row + 3, i]
        out[part] = s0 + s1 + s2 + s3


def machine() -> list[Row]:
    """The two bounds: how fast memory is read, and how fast matrices are multiplied (the 124M model's largest)."""
    x, out = np.ones((124 << 10, 1024), np.float32), np.empty(8 * numba.get_num_threads(), np.float32)
    read = x.nbytes / median(lambda: _read(x, out)) / 1e9
    a, matrices = np.ones((512, 768), np.float32), [np.ones((768, 3072), np.float32) for _ in range(12)]
    gemm = 12 * 2 * 512 * 768 * 3072 / median(lambda: [a @ b for b in matrices]) / 1e9
    return [{"what": "memory, read by all threads", "value": read, "unit": "GB/s"},
            {"what": "float32 matrix product (512×768 · 768×3072)", "value": gemm, "unit": "GFLOP/s"}]  # fmt: skip


def checkpoint(size: str, scratch: Path) -> Path:
    """A folder with a random checkpoint of a published shape."""
    folder = scratch / size
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        config = PUBLISHED[size]
        tensors = {key: random.standard_normal(shape, np.float32) * np.float32(0.02)
                   for key, shape in shapes(config).items()}  # fmt: skip
        save_file(tensors, folder / "model.safetensors")
        fields = {key: value for key, value in vars(config).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(fields | {"model_type": "gpt2"}))
    return folder


def prompt(tokens: int, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 50257, (rows, tokens))


def step_time(model: GPT2, tokens: int, rows: int = 1, steps: int = 30) -> float:
    """Seconds of the median decoding step behind a prompt of so many tokens, fed to so many rows."""
    session = model.start(capacity=min(model.config.n_positions, tokens + steps + 3))
    logits = session.feed(prompt(tokens, rows) % model.config.vocab_size)

    def step() -> None:
        nonlocal logits
        logits = session.feed(logits.argmax(-1)[:, None])

    return median(step, steps)


def weight_bytes(model: GPT2) -> int:
    """Bytes of weights that one decoding step reads: all but the embeddings that aren't looked up."""
    params = model.params
    looked_up = ("wte.weight", "wpe.weight", "lm_head.weight")
    return sum(array.nbytes for key, array in flatten(params) if key not in looked_up) + params.lm_head.nbytes


def measure(size: str, folder: Path, bound: float, gemm: float) -> list[Row]:
    """Every row of one shape."""
    rows: list[Row] = []

    def row(what: str, value: float, unit: str, **more: object) -> None:
        rows.append({"what": f"{size}: {what}", "value": value, "unit": unit, **more})

    ours, torch_model = GPT2.from_pretrained(folder), reference(folder)
    base, their = step_time(ours, 64, steps=60), torch_step(torch_model, 64)
    read = weight_bytes(ours) / base / 1e9
    row("greedy decoding, float32, position 64", 1 / base, "tokens/s", torch=1 / their, gbs=read, share=read / bound)
    late = step_time(ours, min(900, ours.config.n_positions - 40))
    row("the same at position 900", 1 / late, "tokens/s", note=f"{base / late:.2f} × the rate at 64")
    for dtype in ("bfloat16", "int8"):
        reduced = GPT2.from_pretrained(folder, dtype=dtype)
        step = step_time(reduced, 64)
        read = weight_bytes(reduced) / step / 1e9
        row(f"greedy decoding, {dtype}", 1 / step, "tokens/s", gbs=read, share=read / bound,
            note=f"{base / step:.2f} × float32")  # fmt: skip
        del reduced
    prefill, theirs = alternate(lambda: ours.start().feed(prompt(512)), lambda: torch_prefill(torch_model, 512))
    flops = 2 * 512 * sum(array.size for key, array in flatten(ours.params) if key.startswith("h.") and array.ndim == 2)
    row("prompt of 512 tokens", 512 / prefill, "tokens/s", torch=512 / theirs, share=flops / prefill / 1e9 / gemm)
    batch, theirs = step_time(ours, 64, rows=16, steps=12), torch_step(torch_model, 64, rows=16, steps=8)
    row("16 prompts at once", 16 / batch, "tokens/s", torch=16 / theirs)
    beams, theirs = alternate(
        lambda: ours.generate(prompt(64)[0].tolist(), num_beams=5, max_new_tokens=64, eos_token_id=()),
        lambda: torch_generate(torch_model, 64, num_beams=5, max_new_tokens=64), times=2,
    )  # fmt: skip
    row("5 beams × 64 tokens", 64 / beams, "tokens/s", torch=64 / theirs)
    row("sampling a token: temperature, top-k 50, top-p 0.95, torch's draw", 1e3 * sampling_cost(), "ms")
    load = median(lambda: GPT2.from_pretrained(folder), 3)
    row("loading from a warm disk", load, "s")
    row("process start to first token", first_token(folder), "s")
    row("peak memory, 1,000 positions, float32", peak_memory(folder, "ours"), "MB", torch=peak_memory(folder, "torch"))
    return rows


def alternate(ours: Callable[[], object], theirs: Callable[[], object], times: int = 4) -> tuple[float, float]:
    """Median seconds of two things, measured turn by turn so that a slow minute hits both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(times + 1):
        for run, kept in zip((ours, theirs), taken, strict=True):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
    return statistics.median(taken[0][1:]), statistics.median(taken[1][1:])


def reference(folder: Path):
    """transformers' model on torch: float32, eager attention, as many threads as ours."""
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(numba.get_num_threads())
    return GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").eval()


def torch_generate(model, tokens: int, rows: int = 1, **options) -> None:
    import torch

    ids = torch.tensor(prompt(tokens, rows))
    with torch.inference_mode():
        model.generate(ids, do_sample=False, eos_token_id=None, pad_token_id=0, **options)


def torch_step(model, tokens: int, rows: int = 1, steps: int = 20) -> float:
    """Seconds a token of `generate`, the prompt's own time taken off."""
    prompt_only = median(lambda: torch_generate(model, tokens, rows, max_new_tokens=1), 3)
    return (median(lambda: torch_generate(model, tokens, rows, max_new_tokens=1 + steps), 3) - prompt_only) / steps


def torch_prefill(model, tokens: int) -> None:
    import torch

    with torch.inference_mode():
        model(torch.tensor(prompt(tokens)), logits_to_keep=1, use_cache=True)


def sampling_cost() -> float:
    """Seconds that processors and draw take for one token at a vocabulary of 50,257."""
    options = Options(do_sample=True, temperature=0.8, top_k=50, top_p=0.95, seed=0)
    chain, choose = build(options, 0, 1, 100), sampler(options)
    logits, ids = np.random.default_rng(0).standard_normal((1, 50257), np.float32) * 3, [np.array([1])]
    return median(lambda: choose(apply(chain, ids, logits), [0], 1), 200)


def first_token(folder: Path) -> float:
    code = ("import sys, time; from gpt2_np import GPT2; model = GPT2.from_pretrained(sys.argv[1]);"
            "model.generate([1, 2, 3], max_new_tokens=1)")  # fmt: skip
    return median(lambda: subprocess.run([sys.executable, "-c", code, str(folder)], check=True), 5)


def peak_memory(folder: Path, whose: str) -> float:
    """MB at the peak of a process that loads the model, reads 512 tokens and writes up to position 1,000."""
    ours = ("from gpt2_np import GPT2; m = GPT2.from_pretrained(sys.argv[1]);"
            "m.generate(list(range(512)), max_new_tokens=488, eos_token_id=())")  # fmt: skip
    theirs = ("import torch; from transformers import GPT2LMHeadModel; torch.set_num_threads(2);"
              "m = GPT2LMHeadModel.from_pretrained(sys.argv[1], attn_implementation='eager').eval();"
              "m.generate(torch.arange(512)[None], max_new_tokens=488, eos_token_id=None, pad_token_id=0,"
              "           do_sample=False)")  # fmt: skip
    code = "import sys; " + (ours if whose == "ours" else theirs)
    code += "; print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    out = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True, stderr=subprocess.DEVNULL)
    return int(out.split()[-1]) / 1e3


def bundled() -> list[Row]:
    """The bundled model: what a newcomer meets."""
    model = GPT2.from_pretrained()
    step = step_time(model, 64, steps=200)
    start = first_token(model.folder)
    return [{"what": "tales (bundled): greedy decoding", "value": 1 / step, "unit": "tokens/s"},
            {"what": "tales (bundled): process start to first token", "value": start, "unit": "s"}]  # fmt: skip


def cost_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """ms a step against position (one row) and against rows (position 64)."""
    model = GPT2.from_pretrained(folder)
    return {
        "position": [(tokens, 1e3 * step_time(model, tokens, steps=10)) for tokens in (64, 128, 256, 512, 960)],
        "rows": [(rows, 1e3 * step_time(model, 64, rows, steps=5)) for rows in (1, 2, 4, 8, 16, 32, 64)],
    }


def markdown(rows: list[Row]) -> str:
    """The table, with the machine named."""
    lines = [f"Measured on: {name()}; torch's figures in the same run, transformers' `generate`, eager attention.", "",
             "| work | gpt2_np | transformers on torch | ratio | memory read | share of the bound |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        value, unit, theirs = float(row["value"]), row["unit"], row.get("torch")
        figure = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
        ratio = "" if theirs is None else f"{value / theirs:.2f} ×"
        more = row.get("note") or ratio
        their = "" if theirs is None else f"{theirs:,.0f} {unit}" if theirs >= 100 else f"{theirs:.1f} {unit}"
        read = f"{row['gbs']:.1f} GB/s" if "gbs" in row else ""
        share = f"{row['share']:.0%}" if "share" in row else ""
        lines.append(f"| {row['what']} | {figure} {unit} | {their} | {more} | {read} | {share} |")
    return "\n".join(lines)


def plot(curves: dict[str, dict[str, list[tuple[int, float]]]], path: Path) -> None:
    """Cost of a step against position and against rows, a line a size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for panel, axis, label in zip(panels, ("position", "rows"), ("position", "rows decoded at once"), strict=True):
        for size, kinds in curves.items():
            panel.plot(*zip(*kinds[axis], strict=True), marker="o", label=size)
        panel.set(xlabel=label, ylabel="ms a step", ylim=(0, None))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    panels[1].set_xscale("log", base=2)
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
