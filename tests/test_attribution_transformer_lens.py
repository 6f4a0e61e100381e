"""Attribution patching beside TransformerLens's own, by node and by edge, from its golden file."""

from __future__ import annotations

import numpy as np
from golden_transformer_lens import as_loaded, golden, under

from gpt2_np.gradients import logit_difference
from gpt2_np.internals import attribution

CLEAN, CORRUPTED = golden()["clean"][0], golden()["corrupted"][0]
METRIC = logit_difference(5, 9)


def test_nodes_are_transformer_lens_own() -> None:
    found = attribution.nodes(as_loaded(), CLEAN, CORRUPTED, METRIC, names=["embed", "*.attn.z", "*.mlp_out"])
    theirs = under("atp")
    assert np.abs(theirs["z"]).max() > 0.1
    np.testing.assert_allclose(found.scores["embed"], theirs["embed"], atol=2e-5)
    np.testing.assert_allclose(found.stack("attn.z"), theirs["z"], atol=2e-5)
    np.testing.assert_allclose(found.stack("mlp_out"), theirs["mlp_out"], atol=2e-5)


def test_edges_are_transformer_lens_own() -> None:
    found = attribution.edges(as_loaded(), CLEAN, CORRUPTED, METRIC, "eap")
    theirs = under("atp")["edges"]
    assert theirs.shape == found.scores.shape
    assert ((theirs != 0) == attribution.graph.there(as_loaded().config)).all()
    np.testing.assert_allclose(found.scores, theirs, atol=2e-5)
