"""The page on dictionaries does what it says, and the bundled dictionary is what its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from gpt2_np import GPT2
from gpt2_np.internals import dictionaries
from gpt2_np.internals.dictionaries.releases import BUNDLED

PAGE = Path(__file__).parent.parent / "docs" / "dictionaries.md"


def test_every_block_of_the_page_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    defined: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), defined)


def test_the_page_names_every_architecture() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in dictionaries.config.ARCHITECTURES | dictionaries.config.UNREAD:
        assert f"`{name}`" in text, name


def test_the_bundled_dictionary_fits_the_model_and_its_card() -> None:
    folder = BUNDLED["tales"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size <= 3 << 20
    sae, model = dictionaries.load("tales"), GPT2.from_pretrained(backend="numpy")
    text = "Once upon a time there was a king who had three sons, and the youngest of them was a fool."
    found = dictionaries.evaluate(model, sae, [[0, *model.tokenizer.encode(text)]])
    assert found.explained_variance > 0.6
    assert found.score > 0.9
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = json.loads((folder / "figures.json").read_text())
    assert len(sae.names) >= 20
    for feature, name in sae.names.items():
        assert f"| {feature} | {name} |" in card
    for group, figure, digits in (
        ("sparsity", "l0", 1),
        ("reconstruction_quality", "explained_variance", 3),
        ("model_performance_preservation", "ce_loss_score", 3),
    ):
        assert f"{figures[group][figure]:.{digits}f}" in card, figure
    lengths = np.linalg.norm(sae.tensors["W_dec"], axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=2e-3)  # one length, in the model's units
