"""Write the held-out documents, score each with ``gpt2-np score``, and add up the bundled model's figures.

    python scripts/held_out.py --text TEXT --out held-out [--model tales]

TEXT is the folder with ``tales.txt.xz`` and ``novels.txt.xz``; the documents become ``held-out/tales-00.txt`` and so
on. The novels take some minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

from training import data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder with tales.txt.xz and novels.txt.xz")
    parser.add_argument("--out", type=Path, required=True, help="folder for the documents")
    parser.add_argument("--model", default="tales")
    parser.add_argument("--kinds", nargs="*", choices=data.KINDS, default=data.KINDS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for kind in options.kinds:
        found = [score(path, options.model) for path in write(options.text, options.out, kind)]
        nll, size, tokens = (sum(one[name] for one in found) for name in ("nll", "bytes", "tokens"))
        print(
            f"{kind}: {nll / math.log(2) / size:.3f} bits per byte, perplexity {math.exp(nll / tokens):.1f} "
            f"({len(found)} documents, {size:,} bytes)",
            flush=True,
        )


def write(text: Path, out: Path, kind: str) -> list[Path]:
    """The held-out documents of a kind, one a file."""
    held = [document for document in data.documents(text, kind) if data.is_held_out(document)]
    paths = [out / f"{kind}-{number:02}.txt" for number in range(len(held))]
    for path, document in zip(paths, held, strict=True):
        path.write_bytes(document.encode())
    return paths


def score(path: Path, model: str) -> dict[str, float]:
    """Return what ``gpt2-np score --json`` prints about a file."""
    command = "from gpt2_np.cli import main; main()"
    arguments = ["score", "--file", str(path), "--model", model, "--json"]
    done = subprocess.run([sys.executable, "-c", command, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
