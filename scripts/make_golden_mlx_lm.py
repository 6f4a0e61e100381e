"""Make tests/golden/mlx_lm.json: results of mlx-lm's own samplers and penalties (``mlx_lm/sample_utils.py``).

Run it once, where that package is installed (nothing else here depends on it; it runs on Linux without a GPU):

    pip install "mlx[cpu]" && pip install --no-deps mlx-lm
    python scripts/make_golden_mlx_lm.py
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

OUT = Path(__file__).parent.parent / "tests/golden/mlx_lm.json"


def sample_utils() -> Any:
    """The one module, without the rest of mlx-lm and what that needs."""
    folder = next(file for file in importlib.metadata.files("mlx-lm") or () if file.name == "sample_utils.py").locate()
    spec = importlib.util.spec_from_file_location("sample_utils", str(folder))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows() -> list[np.ndarray]:
    """Log-probabilities of several shapes."""
    random = np.random.default_rng(0)
    scores = [random.standard_normal(n) * scale for n in (6, 40) for scale in (0.5, 1.5, 4.0)]
    scores += [np.log([0.1, 0.2, 0.3, 0.4]), np.array([1.0, 1.0, 0.0, 0.0, 0.0, -1.0])]
    return [np.float32(row - np.log(np.exp(row).sum())) for row in scores]


def main() -> None:
    S, cases, chains, penalties = sample_utils(), [], [], []
    for number, row in enumerate(rows()):
        x = mx.array(row)[None]
        samplers: list[tuple[str, list[float], Callable[..., Any]]] = [
            ("top_k", [1, 3], S.apply_top_k),
            ("top_p", [0.1, 0.5, 0.95], S.apply_top_p),
            ("min_p", [0.05, 0.5, 0.9], S.apply_min_p),
            ("xtc", [0.01, 0.1, 0.3, 0.5], lambda x, t: S.apply_xtc(x, 1.0, t, [])),
        ]
        for name, settings, one in samplers:
            for setting in settings:
                kept = np.flatnonzero(np.isfinite(np.array(one(x, setting))[0])).tolist()
                cases.append({"sampler": name, "setting": setting, "row": number, "ids": kept})
        for p, min_p, threshold, k, temperature in [(0.9, 0.05, 0.1, 3, 0.7), (0.5, 0.2, 0.3, 2, 1.5)]:
            out = S.apply_top_k(S.apply_xtc(S.apply_min_p(S.apply_top_p(x, p), min_p), 1.0, threshold, []), k)
            out = np.array(out * (1 / temperature))[0]
            kept = np.flatnonzero(np.isfinite(out)).tolist()
            together = {"top_p": p, "min_p": min_p, "xtc_threshold": threshold, "top_k": k, "temperature": temperature}
            chains.append({"setting": together, "row": number, "ids": kept, "scores": out[kept].tolist()})
        text = np.random.default_rng(number).integers(0, 4, 30).tolist()
        for repeat, presence, frequency in [(1.3, None, None), (None, 0.5, None), (None, None, 0.25), (0.8, 0.1, 0.2)]:
            out = mx.array(row)[None]  # which the processors change in place
            for processor in S.make_logits_processors(None, repeat, 20, presence, 20, frequency, 20):
                out = processor(mx.array(text), out)
            penalties.append(
                {
                    "repetition_penalty": repeat,
                    "presence_penalty": presence,
                    "frequency_penalty": frequency,
                    "text": text,
                    "row": number,
                    "scores": np.array(out)[0].tolist(),
                }
            )
    golden = {
        "mlx_lm": importlib.metadata.version("mlx-lm"),
        "rows": [row.tolist() for row in rows()],
        "simple": cases,
        "chains": chains,
        "penalties": penalties,
    }
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
