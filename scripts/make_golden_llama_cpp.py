"""Make tests/golden/llama_cpp.json: results of llama.cpp's own samplers, by llama-cpp-python's low-level interface.

Run it once, where that package is installed (nothing else here depends on it):

    pip install llama-cpp-python
    python scripts/make_golden_llama_cpp.py --vocabulary ggml-vocab-gpt-2.gguf

DRY's breakers are texts in llama.cpp, so they need a vocabulary; the file is in llama.cpp's ``models`` folder.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp as L
import numpy as np

Case = dict[str, Any]  # a case of the golden file, as JSON
OUT = Path(__file__).parent.parent / "tests/golden/llama_cpp.json"
Vocabulary = Any


def run(row: np.ndarray, *samplers: Any, accept: list[int] | tuple[int, ...] = ()) -> Case:
    """The ids that are left after the samplers with their scores, in the order of ids, and the id drawn, if any."""
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    for sampler in samplers:
        L.llama_sampler_chain_add(chain, sampler)
    for token in accept:
        L.llama_sampler_accept(chain, token)
    out = apply(chain, row)
    L.llama_sampler_free(chain)
    return out


def apply(sampler: Any, row: np.ndarray) -> Case:
    """One application of a sampler to (V,) scores."""
    cells = (L.llama_token_data * len(row))(*[L.llama_token_data(i, float(x), 0.0) for i, x in enumerate(row)])
    array = L.llama_token_data_array(cells, len(row), -1, False)
    L.llama_sampler_apply(sampler, ctypes.byref(array))
    left = sorted((array.data[i].id, array.data[i].logit) for i in range(array.size))
    left = [(token, score) for token, score in left if np.isfinite(score)]
    out: Case = {"ids": [token for token, _ in left], "scores": [score for _, score in left]}
    if array.selected >= 0:
        out["drawn"] = array.data[array.selected].id
    return out


def rows() -> list[np.ndarray]:
    """Scores of several shapes, without ties: an unstable sort settles those."""
    random = np.random.default_rng(0)
    out = [random.standard_normal(n) * scale for n in (4, 32, 120) for scale in (0.3, 1.0, 4.0)]
    out.append(np.log([0.1, 0.2, 0.3, 0.4]))
    out.append(np.log([0.97, 0.01, 0.011, 0.009]))
    return [np.float32(np.round(row, 4)) for row in out]


def simple() -> list[Case]:
    """Samplers without memory."""
    make: dict[str, tuple[Callable[..., Any], list[tuple[float, ...]]]] = {
        "top_k": (L.llama_sampler_init_top_k, [(1,), (3,), (40,)]),
        "top_p": (L.llama_sampler_init_top_p, [(0.05, 1), (0.5, 1), (0.95, 1), (0.5, 3), (1.0, 1)]),
        "min_p": (L.llama_sampler_init_min_p, [(0.05, 1), (0.5, 1), (0.9, 3), (0.0, 1)]),
        "typical_p": (L.llama_sampler_init_typical, [(0.2, 1), (0.9, 1), (0.2, 3), (1.0, 1)]),
        "top_n_sigma": (L.llama_sampler_init_top_n_sigma, [(0.5,), (1.0,), (2.5,)]),
        "dynatemp": (L.llama_sampler_init_temp_ext, [(1.0, 0.5, 1.0), (0.8, 0.8, 1.0), (0.5, 2.0, 2.5)]),
    }
    cases = []
    for name, (build, settings) in make.items():
        for setting in settings:
            for number, row in enumerate(rows()):
                out = run(row, build(*setting))
                if name != "dynatemp":
                    out.pop("scores")  # they are the row's own
                cases.append({"sampler": name, "setting": setting, "row": number, **out})
    for threshold in (0.01, 0.05, 0.1, 0.3, 0.6):
        for keep in (1, 3):
            for number, row in enumerate(rows()):
                xtc = L.llama_sampler_init_xtc(1.0, threshold, keep, 1)
                left = run(row, xtc)["ids"]
                cases.append({"sampler": "xtc", "setting": (threshold, keep), "row": number, "ids": left})
    return cases


def penalties() -> list[Case]:
    """Penalties over the last n ids of a text."""
    random, cases = np.random.default_rng(1), []
    for last_n, repeat, frequency, presence in [(64, 1.3, 0, 0), (5, 0.7, 0, 0), (64, 1, 0.5, 0), (8, 1.1, 0.25, 0.5)]:
        for number, row in enumerate(rows()):
            text = random.integers(0, min(len(row), 12), 20).tolist()
            out = run(row, L.llama_sampler_init_penalties(len(row), last_n, repeat, frequency, presence), accept=text)
            cases.append({"setting": (last_n, repeat, presence, frequency), "text": text, "row": number, **out})
    return cases


def dry(vocabulary: Vocabulary) -> list[Case]:
    """DRY over texts of few distinct ids, with breakers that are whole ids of the vocabulary."""
    random, cases = np.random.default_rng(2), []
    few = [198, 25, 1, 9, 262, 286]  # "\n", ":", '"', "*", " the", " of"
    pieces = {198: b"\n", 25: b":", 1: b'"', 9: b"*"}
    flat = np.zeros(400, np.float32)
    for setting in [(0.8, 1.75, 2, 64), (1.0, 1.1, 1, 12), (2.0, 1.0, 0, 64), (3e30, 9.0, 1, 64)]:
        for breakers in ([], [198], [198, 25, 1, 9]):
            for alphabet in (2, 3, 6):
                text = random.choice(few[-alphabet:], 30).tolist()
                words = (ctypes.c_char_p * len(breakers))(*[pieces[token] for token in breakers])
                sampler = L.llama_sampler_init_dry(vocabulary, *setting, words, len(breakers))
                out = run(flat, sampler, accept=text)
                changed = {token: score for token, score in zip(out["ids"], out["scores"], strict=True) if score != 0}
                cases.append({"setting": setting, "breakers": breakers, "text": text, "changed": changed})
    return cases


def mirostat() -> list[Case]:
    """Twenty steps of each version: what stays at each, and what llama.cpp drew.

    Not too flat: version 1 computes a k that may not fit an int, which C++ leaves undefined.
    """
    random, cases = np.random.default_rng(3), []
    for version in (1, 2):
        for tau, eta in [(3.0, 0.1), (2.0, 0.5), (0.5, 0.3)]:
            V, steps = 100, []
            if version == 1:
                sampler = L.llama_sampler_init_mirostat(V, 7, tau, eta, 100)
            else:
                sampler = L.llama_sampler_init_mirostat_v2(7, tau, eta)
            for _ in range(20):
                row = np.float32(np.round(random.standard_normal(V) * random.choice([1.5, 2, 4]), 4))
                out = apply(sampler, row)
                steps.append({"row": [round(float(x), 4) for x in row], "ids": out["ids"], "drawn": out["drawn"]})
            L.llama_sampler_free(sampler)
            cases.append({"version": version, "tau": tau, "eta": eta, "steps": steps})
    return cases


def adaptive_p() -> list[Case]:
    """Twenty-five steps each, behind min-p or alone: the scores that llama.cpp draws from, and what it drew."""
    random, cases = np.random.default_rng(4), []
    for target, decay, min_p in [(0.5, 0.9, 0.05), (0.2, 0.5, 0.0), (0.9, 0.99, 0.1), (0.0, 0.0, 0.02), (1.0, 0.7, 0)]:
        chain, steps = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params()), []
        if min_p:
            L.llama_sampler_chain_add(chain, L.llama_sampler_init_min_p(min_p, 1))
        L.llama_sampler_chain_add(chain, L.llama_sampler_init_adaptive_p(target, decay, 7))
        for _ in range(25):
            row = np.float32(np.round(random.standard_normal(24) * random.choice([1, 2, 4]), 3))
            out = apply(chain, row)
            L.llama_sampler_accept(chain, out["drawn"])
            scores = [round(one, 5) for one in out["scores"]]
            steps.append({"row": [round(float(x), 3) for x in row], **out, "scores": scores})
        L.llama_sampler_free(chain)
        cases.append({"target": target, "decay": decay, "min_p": min_p, "steps": steps})
    return cases


def chains() -> list[Case]:
    """The default chain from top-n-sigma to the temperature (``common_sampler_init``)."""
    cases = []
    for sigma, k, typical, p, min_p, temperature in [(-1, 40, 1, 0.95, 0.05, 0.8), (2, 10, 0.9, 0.8, 0.1, 1.5)]:
        for number, row in enumerate(rows()):
            chain = [
                L.llama_sampler_init_top_n_sigma(sigma),
                L.llama_sampler_init_top_k(k),
                L.llama_sampler_init_typical(typical, 1),
                L.llama_sampler_init_top_p(p, 1),
                L.llama_sampler_init_min_p(min_p, 1),
                L.llama_sampler_init_temp(temperature),
            ]
            setting = {
                "top_n_sigma": sigma,
                "top_k": k,
                "typical_p": typical,
                "top_p": p,
                "min_p": min_p,
                "temperature": temperature,
            }
            cases.append({"setting": setting, "row": number, **run(row, *chain)})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", help="ggml-vocab-gpt-2.gguf; without it only adaptive_p is made anew")
    arguments = parser.parse_args()
    if arguments.vocabulary is None:
        golden = json.loads(OUT.read_text()) | {
            "adaptive_p": {"llama_cpp_python": L.__version__, "cases": adaptive_p()}
        }
        OUT.write_text(json.dumps(golden, separators=(",", ":"), default=float) + "\n")
        return
    settings = L.llama_model_default_params()
    settings.vocab_only = True
    model = L.llama_model_load_from_file(arguments.vocabulary.encode(), settings)
    vocabulary = L.llama_model_get_vocab(model)
    golden = {
        "llama_cpp_python": L.__version__,
        "rows": [row.tolist() for row in rows()],
        "simple": simple(),
        "penalties": penalties(),
        "dry": dry(vocabulary),
        "mirostat": mirostat(),
        "chains": chains(),
        "adaptive_p": {"llama_cpp_python": L.__version__, "cases": adaptive_p()},
    }
    OUT.write_text(json.dumps(golden, separators=(",", ":"), default=float) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
