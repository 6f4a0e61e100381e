"""Write the list of SAELens's dictionaries for GPT-2, from the list that SAELens ships.

    python scripts/write_releases.py path/to/sae_lens/pretrained_saes.yaml VERSION

For each release the list holds its place on the hub, the folder of each of its ids, the values that override its files'
configuration, and the factor by which activations were scaled in training. SAELens is under the MIT licence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).parent.parent / "gpt2_np" / "internals" / "dictionaries" / "releases.json"
MODELS = ("gpt2", "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")


def release(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of one release in the list."""
    pickled = entry.get("conversion_func") is not None
    kept: dict[str, Any] = {"model": entry["model"], "repository": entry["repo_id"], "pickled": pickled}
    kept["overrides"] = entry.get("config_overrides") or {}
    kept["paths"] = {one["id"]: one["path"] for one in entry["saes"]}
    factors = {one["id"]: one["norm_scaling_factor"] for one in entry["saes"] if "norm_scaling_factor" in one}
    return kept | ({"factors": factors} if factors else {})


def main(path: str, version: str) -> None:
    listed = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    kept = {name: release(entry) for name, entry in sorted(listed.items()) if entry["model"] in MODELS}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in kept.items())
    source = f"sae_lens/pretrained_saes.yaml of SAELens {version} (MIT licence)"
    OUT.write_text(f'{{\n "source": {json.dumps(source)},\n "releases": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    print(f"{OUT}: {len(kept)} releases, {sum(len(one['paths']) for one in kept.values())} dictionaries")


if __name__ == "__main__":
    main(*sys.argv[1:])
