"""What transformers 4.55.4 found by the searches that version 5 has no more (scripts/make_golden_searches.py)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import MODELS, tensors

from decoders import Completion, Options, generate
from gpt2_np.model.config import Config
from gpt2_np.model.params import assemble
from gpt2_np.session.model import Model

GOLDEN = json.loads((Path(__file__).parent / "golden" / "searches.json").read_text())


@cache
def model(number: int | str) -> Model:
    """One of the tiny models on the readable path, or the bundled one, compiled."""
    if number == "tales":
        return Model.from_pretrained("tales")
    fields = {name: value for name, value in MODELS[int(number)].items() if name != "seed"}
    config = Config(**fields, bos_token_id=0, eos_token_id=0)
    return Model(assemble(tensors(MODELS[int(number)]), config), config, backend="numpy")


def ours(case: dict[str, Any], **more: Any) -> list[Completion]:
    """The same case by decoders."""
    chosen = model(case["model"])
    options = Options(**(case["options"] | more))
    return generate(chosen.start(), case["prompts"], options, context=chosen.config.n_positions)


def same_beams(case: dict[str, Any]) -> None:
    """Token for token, and scores to 2e-5. transformers writes the first end-of-text whichever was chosen.

    Where fewer texts are possible than were asked for, transformers returns what no beam may choose; we refuse.
    """
    if min(case["scores"]) < -1e6:
        with pytest.raises(ValueError, match="number of texts found"):
            ours(case)
        return
    found = ours(case)
    ends = Options(**case["options"]).eos_token_ids
    ids = [[*one.ids[:-1], ends[0]] if one.ids[-1] in ends else one.ids for one in found]
    assert ids == case["ids"], case
    np.testing.assert_allclose([one.score for one in found], case["scores"], atol=2e-5, rtol=2e-6)


def same_tokens(case: dict[str, Any]) -> None:
    """Token for token; the score of each after every processor, and how many tokens there were to choose from."""
    for one, ids, scores, left in zip(
        ours(case, output_scores=True), case["ids"], case["scores"], case["left"], strict=True
    ):
        assert one.ids == ids, case
        assert [int(np.isfinite(row).sum()) for row in one.scores] == left
        chosen = [float(row[token]) for row, token in zip(one.scores, one.ids, strict=True)]
        np.testing.assert_allclose(chosen, scores, atol=2e-5, rtol=2e-6)
