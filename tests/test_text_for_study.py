"""Text wherever ids go: runs, sweeps, lenses and attributions take texts, as the ids that they are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli.internals import internals_group
from gpt2_np.internals import ablation, lens, patching, steering
from gpt2_np.internals.page import inspect_page
from gpt2_np.internals.variants import log_probability, logit_difference
from gpt2_np.model.taps import points
from gpt2_np.session.model import Model

BOY, GIRL = "The boy was sad because", "The girl was sad because"


def test_runs_take_a_text_as_the_ids_that_it_is(gpt2: GPT2) -> None:
    ids, start = gpt2.prompt_ids("The king"), gpt2.prompt_ids("")
    for prepend_bos, same in ((False, ids), (True, start + ids)):
        logits, cache = gpt2.run_with_cache("The king", "*.pattern", prepend_bos=prepend_bos)
        expected, theirs = gpt2.run_with_cache(same, "*.pattern")
        np.testing.assert_array_equal(logits, expected)
        np.testing.assert_array_equal(cache["pattern", 0], theirs["pattern", 0])
        np.testing.assert_array_equal(gpt2("The king", prepend_bos=prepend_bos), expected)
        edited, _ = gpt2.run_with_edits("The king", {"blocks.0.mlp_out": np.zeros_like}, prepend_bos=prepend_bos)
        np.testing.assert_array_equal(edited, gpt2.run_with_edits(same, {"blocks.0.mlp_out": np.zeros_like})[0])
        run = gpt2.run_with_gradients("The king", log_probability(" is"), "*.resid_pre", prepend_bos=prepend_bos)
        again = gpt2.run_with_gradients(same, log_probability(" is"), "*.resid_pre")
        np.testing.assert_array_equal(run.grads["resid_pre", 0], again.grads["resid_pre", 0])
    assert gpt2.to_ids("", prepend_bos=True) == gpt2.to_ids("") == start
    assert gpt2.to_ids([1, 2], prepend_bos=True) == [1, 2]  # ids are taken as they are


def test_several_texts_of_one_length_are_a_batch(gpt2: GPT2) -> None:
    rows = [gpt2.prompt_ids(text) for text in (BOY, GIRL)]
    np.testing.assert_array_equal(gpt2([BOY, GIRL]), gpt2(rows))
    np.testing.assert_array_equal(gpt2.run_with_cache([BOY, rows[1]], [])[0], gpt2(rows))
    with pytest.raises(ValueError, match="rows of ids must be of equal lengths, got 2, 5"):
        gpt2.run_with_cache([BOY, "The king"])
    assert gpt2.run_with_gradients([BOY, "The king"], log_probability(" is"), ()).lengths.tolist() == [5, 2]


def test_a_model_without_a_tokenizer_says_so(gpt2: GPT2) -> None:
    bare = Model(gpt2.params, gpt2.config, backend="numpy")
    for text in ("The king", ["The king"]):
        with pytest.raises(ValueError, match="a text needs a model with a tokenizer; give ids, got 'The king'"):
            bare.run_with_cache(text)
    cache = bare.run_with_cache([1, 2])[1]
    with pytest.raises(ValueError, match="a text needs a model with a tokenizer"):
        cache.logit_attrs(cache.decompose_resid()[0], " king")


def test_answers_are_texts_of_one_token(gpt2: GPT2) -> None:
    _, cache = gpt2.run_with_cache([BOY, GIRL])
    stack, _ = cache.decompose_resid()
    he, she = (gpt2.to_single_token(word) for word in (" he", " she"))
    np.testing.assert_array_equal(cache.logit_attrs(stack, " he"), cache.logit_attrs(stack, he))
    both = cache.logit_attrs(stack, [" he", " she"], [" she", " he"])
    np.testing.assert_array_equal(both, cache.logit_attrs(stack, [he, she], [she, he]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache))["resid_pre", 0], cache["resid_pre", 0])
    with pytest.raises(ValueError, match="must be one token, got ' hehehe'"):
        cache.logit_attrs(stack, " hehehe")
    with pytest.raises(ValueError, match="tokens must be ids or texts of one token"):
        cache.directions(1.5)


def test_a_filter_says_which_activations(gpt2: GPT2) -> None:
    _, cache = gpt2.run_with_cache("The king", lambda name: name.endswith("pattern") and ".0." in name)
    assert list(cache) == ["blocks.0.attn.pattern"]
    seen: list[str] = []
    with pytest.raises(ValueError, match="the filter of names takes no activation"):
        gpt2.run_with_cache("The king", lambda name: seen.append(name))
    assert seen == list(points(gpt2.config))


def test_experiments_take_texts(gpt2: GPT2) -> None:
    ids = gpt2.prompt_ids("") + gpt2.prompt_ids(BOY)
    looked = lens.logit_lens(gpt2, BOY, prepend_bos=True)
    np.testing.assert_array_equal(looked.logits, lens.logit_lens(gpt2, ids).logits)
    metric = log_probability(" he")
    scores = ablation.ablate(gpt2, BOY, metric, what="mlps", prepend_bos=True)
    he = log_probability(gpt2.to_single_token(" he"))
    np.testing.assert_array_equal(scores, ablation.ablate(gpt2, ids, he, what="mlps"))
    vector = steering.steering_vector(gpt2, [BOY], [GIRL], 2)
    np.testing.assert_array_equal(
        vector, steering.steering_vector(gpt2, [gpt2.prompt_ids(BOY)], [gpt2.prompt_ids(GIRL)], 2)
    )
    assert f'"ids":{ids}'.replace(" ", "") in inspect_page(gpt2, BOY, prepend_bos=True)


def test_the_switch_is_the_same_in_library_and_command_line(gpt2: GPT2, tmp_path: Path) -> None:
    metric = logit_difference(" he", " she")
    seen = []
    for flags, prepend_bos in (([], False), (["--bos"], True)):
        arguments = ["patch", BOY, GIRL, "--answer", " he", "--versus", " she", "--over", "layer", "--json", *flags]
        done = CliRunner().invoke(internals_group, arguments, catch_exceptions=False)
        told = json.loads(done.stdout)
        result = patching.activation_patch(gpt2, BOY, GIRL, metric, over="layer", prepend_bos=prepend_bos)
        assert told["clean"] == pytest.approx(result.clean, abs=1e-5)
        seen.append(round(result.clean, 2))
    assert seen[0] != seen[1]
    assert seen[1] == 3.91  # the guide's figure, which begins with begin-of-text


# ---- data sets of pairs --------------------------------------------------------------------------------------------


def test_pairs_are_averaged_with_their_spread(gpt2: GPT2) -> None:
    pairs = [(BOY, GIRL), ("The man was sad because", "The woman was sad because"), (GIRL, BOY)]
    clean, corrupted = zip(*pairs, strict=True)
    he, she = [" he", " he", " she"], [" she", " she", " he"]
    for over in ("layer", "position"):
        whole = patching.activation_patch(gpt2, list(clean), list(corrupted), logit_difference(he, she), over=over)
        each = [
            patching.activation_patch(gpt2, one, other, logit_difference(right, wrong), over=over)
            for (one, other), right, wrong in zip(pairs, he, she, strict=True)
        ]
        np.testing.assert_allclose(whole.scores, np.mean([one.scores for one in each], axis=0), atol=1e-5)
        np.testing.assert_allclose(whole.spread, np.std([one.scores for one in each], axis=0), atol=1e-5)
        assert whole.clean == pytest.approx(np.mean([one.clean for one in each]), abs=1e-5)
        assert whole.corrupted == pytest.approx(np.mean([one.corrupted for one in each]), abs=1e-5)
        assert (each[0].spread == 0).all()
        assert whole.spread.max() > 0.1


def test_rows_of_ids_are_one_pair(gpt2: GPT2) -> None:
    ids = [gpt2.prompt_ids(text) for text in (BOY, GIRL)]
    metric = log_probability(" he")
    flat = patching.path_patch(gpt2, *ids, metric, [("unembed", None)])
    array = patching.path_patch(gpt2, *np.array(ids)[:, None], metric, [("unembed", None)])
    np.testing.assert_array_equal(array.scores, flat.scores)
    several = patching.path_patch(gpt2, [BOY, BOY], [GIRL, GIRL], metric, [("unembed", None)])
    np.testing.assert_allclose(several.scores, flat.scores, atol=1e-6)


def test_pairs_that_are_none(gpt2: GPT2) -> None:
    metric = log_probability(" he")
    with pytest.raises(ValueError, match="every clean prompt needs its corrupted one, got 2 and 1"):
        patching.activation_patch(gpt2, [BOY, BOY], [GIRL], metric)
    with pytest.raises(ValueError, match=r"must have equally many tokens, got 5 in .* and 2 in"):
        patching.activation_patch(gpt2, BOY, "The king", metric)
    with pytest.raises(ValueError, match="over 'position' needs pairs of one length, got 2, 5 tokens"):
        patching.activation_patch(gpt2, [BOY, "The king"], [GIRL, "The sea"], metric)
    longer = patching.activation_patch(gpt2, [BOY, "The king"], [GIRL, "The sea"], metric, over="layer")
    assert longer.scores.shape == (gpt2.config.n_layer,)
