"""The contract: what users and their programs rely on, one test for each of its lines. Extend it, don't break it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2_np import GPT2, Generation
from gpt2_np.cli import main
from gpt2_np.gradients import cross_entropy, kl_divergence, log_probability, logit_difference
from gpt2_np.internals import attribution, jacobian_lens
from gpt2_np.training import AdamW, train

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> GPT2:
    return GPT2.from_pretrained()


def command(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command."""
    status = 0
    try:
        main(list(map(str, arguments)))
    except SystemExit as error:
        status = int(error.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


# ---- loading


def test_the_bundled_model_has_a_name(model: GPT2) -> None:
    assert GPT2.from_pretrained("tales").config == model.config


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8", "int4"])
def test_a_local_folder_and_every_dtype(dtype: str, small: Path) -> None:
    loaded = GPT2.from_pretrained(small, dtype=dtype)
    assert GPT2.from_pretrained(str(small), dtype=dtype)([1, 2]).shape == (2, loaded.config.vocab_size)
    assert loaded.dtype == (np.float64 if dtype == "float64" else np.float32)


def test_the_tokenizer_encodes_and_decodes(model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    assert isinstance(ids, list)
    assert all(type(one) is int for one in ids)
    assert model.tokenizer.decode(ids) == PROMPT


def test_ids_work_without_a_tokenizer(small: Path) -> None:
    assert len(GPT2.from_pretrained(small).generate([1, 2], max_new_tokens=3, eos_token_id=()).ids) == 3


# ---- calling, generating, scoring


def test_logits(model: GPT2) -> None:
    V = model.config.vocab_size
    assert model([1, 2, 3]).shape == (3, V)
    assert model([[1, 2, 3], [4, 5, 6]]).shape == (2, 3, V)
    assert model([1, 2, 3]).dtype == np.float32


def test_one_prompt_gives_a_generation_anything_else_a_list(model: GPT2) -> None:
    one = model.generate(PROMPT, max_new_tokens=4)
    assert isinstance(one, Generation)
    assert isinstance(model.generate([1, 2], max_new_tokens=2), Generation)
    for prompt, options, count in (
        (PROMPT, {"num_return_sequences": 1}, 1),
        (PROMPT, {"num_return_sequences": 3, "do_sample": True, "seed": 1}, 3),
        ([PROMPT], {}, 1),
        ([PROMPT, [1, 2, 3]], {}, 2),
        ([PROMPT, "It"], {"num_return_sequences": 2, "num_beams": 2}, 4),
    ):
        several = model.generate(prompt, max_new_tokens=2, **options)
        assert isinstance(several, list)
        assert len(several) == count


def test_what_a_generation_holds(model: GPT2) -> None:
    ids = model.tokenizer.encode(PROMPT)
    one = model.generate(PROMPT, max_new_tokens=6)
    assert one.ids == model.generate(ids, max_new_tokens=6).ids
    assert one.text == model.tokenizer.decode(one.ids)
    assert one.finish_reason == "length"
    logits = model([*ids, *one.ids])[len(ids) - 1 : -1].astype(np.float64)
    own = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(one.logprobs, own[np.arange(6), one.ids], atol=1e-4)
    ended = model.generate(PROMPT, max_new_tokens=6, eos_token_id=one.ids[2])
    assert (ended.ids, ended.finish_reason) == (one.ids[:3], "stop")
    assert ended.text == model.tokenizer.decode(one.ids[:2])


def test_a_stream_is_the_text_in_pieces(model: GPT2) -> None:
    options = {"do_sample": True, "seed": 5, "max_new_tokens": 20}
    pieces = list(model.stream(PROMPT, **options))
    assert "".join(pieces) == model.generate(PROMPT, **options).text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_score(model: GPT2) -> None:
    score = model.score(PROMPT)
    assert score.tokens == len(model.tokenizer.encode(PROMPT))
    assert score.bytes == len(PROMPT)
    assert score.bits_per_byte == pytest.approx(score.nll / np.log(2) / score.bytes)
    assert score.perplexity == pytest.approx(np.exp(score.nll / score.tokens))


def test_a_seed_is_torch_s(model: GPT2) -> None:
    import torch

    logits = model.run_with_cache(PROMPT_IDS)[0][-1]
    torch.manual_seed(7)
    drawn = int(torch.multinomial(torch.softmax(torch.tensor(logits)[None], -1), 1))
    assert model.generate(PROMPT_IDS, max_new_tokens=1, do_sample=True, seed=7, eos_token_id=()).ids == [drawn]


PROMPT_IDS = [5, 6, 7]


@pytest.mark.parametrize("off", [{"top_k": 0}, {"top_p": 1.0}, {"no_repeat_ngram_size": 0}, {"temperature": 1.0}])
def test_what_means_off_in_transformers_means_off(off: dict[str, Any], model: GPT2) -> None:
    options = {"do_sample": True, "seed": 3, "max_new_tokens": 8}
    assert model.generate(PROMPT, **options, **off).ids == model.generate(PROMPT, **options).ids


# ---- observing, saving, other parameters


def test_a_run_with_its_activations(model: GPT2) -> None:
    logits, cache = model.run_with_cache(PROMPT_IDS)
    H = model.config.n_head
    assert logits.shape == (3, model.config.vocab_size)
    assert cache["blocks.0.attn.pattern"].shape == cache["blocks.0.attn.hook_pattern"].shape == (1, H, 3, 3)
    assert next(iter(model.run_with_cache(PROMPT_IDS, "blocks.*.resid_pre")[1])) == "blocks.0.resid_pre"


def test_a_saved_model_is_loaded_by_us_and_by_transformers(model: GPT2, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(GPT2.from_pretrained(tmp_path)(PROMPT_IDS), model(PROMPT_IDS))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.inference_mode():
        np.testing.assert_allclose(theirs(torch.tensor([PROMPT_IDS])).logits[0], model(PROMPT_IDS), atol=1e-3)


def test_the_same_model_with_other_parameters(model: GPT2) -> None:
    other = model.with_params(model.params._replace(wpe=model.params.wpe * 0.5))
    assert isinstance(other, GPT2)
    assert not np.array_equal(other(PROMPT_IDS), model(PROMPT_IDS))


# ---- gradients


def test_a_run_with_gradients(model: GPT2) -> None:
    run = model.run_with_gradients(PROMPT_IDS, cross_entropy(), parameters=True)
    assert run.value.shape == (1,)
    assert run.logits.shape == (3, model.config.vocab_size)
    assert run.grads["blocks.0.resid_pre"].shape == run.cache["blocks.0.resid_pre"].shape
    assert run.params.wte.shape == model.params.wte.shape
    rows = model.run_with_gradients([PROMPT_IDS, [8]], logit_difference(1, 2), "blocks.1.resid_pre")
    assert rows.value.shape == (2,)
    assert list(rows.lengths) == [3, 1]
    assert not rows.grads["blocks.1.resid_pre"][1, 1:].any()


def test_metrics(model: GPT2) -> None:
    logits, ids = model([PROMPT_IDS]), np.array([PROMPT_IDS])
    reference = model([[1, 2, 3]])
    for metric in (cross_entropy(), logit_difference(1, 2), log_probability(3), kl_divergence(reference)):
        assert metric.value(logits, ids).shape == (1,)
        assert metric.gradient(logits, ids).shape == logits.shape
    assert np.shape(logit_difference(1, 2)(logits)) == (1,)
    np.testing.assert_allclose(logit_difference(1, 2).value(logits, ids), logits[:, -1, 1] - logits[:, -1, 2])


def test_a_bare_function_is_refused_in_a_gradient_run(model: GPT2) -> None:
    edited = model.with_edits({"blocks.0.mlp_out": lambda x: x * 0.5})
    with pytest.raises(ValueError, match="Edit"):
        edited.run_with_gradients(PROMPT_IDS, cross_entropy())


# ---- training


def test_an_optimizer_s_step(model: GPT2) -> None:
    run = model.run_with_gradients(PROMPT_IDS, cross_entropy(), (), parameters=True)
    optimizer = AdamW(1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01, decayed="matrices")
    params, state = optimizer.step(model.params, run.params, None)
    after = model.with_params(params)
    assert after.run_with_gradients(PROMPT_IDS, cross_entropy(), ()).value[0] < run.value[0]
    optimizer.step(params, run.params, state, donate=False)
    assert callable(train)


# ---- study


CLEAN, CORRUPTED = [5, 6, 7, 8], [5, 9, 7, 8]


@pytest.mark.parametrize("method", ["atp", "atp*", "relp"])
def test_attribution_by_node(method: str, model: GPT2) -> None:
    found = attribution.nodes(model, CLEAN, CORRUPTED, logit_difference(1, 2), method, names="blocks.0.attn.z")
    assert found.scores["blocks.0.attn.z"].shape == found.spread["blocks.0.attn.z"].shape
    assert np.isfinite(found.scores["blocks.0.attn.z"]).all()


def test_attribution_by_node_is_the_difference_times_the_gradient_at_the_corrupted_run(model: GPT2) -> None:
    name, metric = "blocks.1.resid_pre", logit_difference(1, 2)
    found = attribution.nodes(model, CLEAN, CORRUPTED, metric, names=name).scores[name]
    difference = model.run_with_cache(CLEAN, name)[1][name] - model.run_with_cache(CORRUPTED, name)[1][name]
    gradient = model.run_with_gradients(CORRUPTED, metric, name).grads[name]
    np.testing.assert_allclose(found, (difference * gradient).sum(axis=-1)[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_attribution_by_edge(method: str, model: GPT2) -> None:
    found = attribution.edges(model, CLEAN, CORRUPTED, logit_difference(1, 2), method=method, steps=2)
    assert found.scores.shape == (len(found.senders), len(found.receivers))
    circuit = found.circuit(20)
    assert circuit.run(CLEAN).shape[-1] == model.config.vocab_size
    assert isinstance(circuit.faithfulness(), float)


def test_attribution_by_input(model: GPT2) -> None:
    metric = logit_difference(1, 2)
    scores = {
        method: attribution.inputs(model, CLEAN, metric, method=method, steps=8).scores
        for method in ("saliency", "input_x_gradient", "integrated_gradients")
    }
    assert all(one.shape == (4,) for one in scores.values())
    gradient = model.run_with_gradients(CLEAN, metric, "embed").grads["embed"][0]
    np.testing.assert_allclose(scores["saliency"], np.linalg.norm(gradient, axis=-1), rtol=1e-3)
    np.testing.assert_allclose(
        scores["input_x_gradient"], (model.params.wte[CLEAN] * gradient).sum(axis=-1), rtol=1e-3, atol=1e-6
    )


def test_a_jacobian_lens(small: Path, tmp_path: Path) -> None:
    model, texts = GPT2.from_pretrained(small), [list(range(start, start + 12)) for start in (1, 20)]
    one, other = (jacobian_lens.fit(model, [text], skip_first=2) for text in texts)
    lens = jacobian_lens.merge([one, other])
    jacobian_lens.save(lens, tmp_path / "lens")
    _, cache = model.run_with_cache(texts[0])
    read = jacobian_lens.load(tmp_path / "lens").read(cache)
    assert read.shape == (model.config.n_layer, 12, model.config.vocab_size)
    np.testing.assert_allclose(read[-1], model(texts[0]), atol=1e-4)
    np.testing.assert_array_equal(read, lens.read(cache))


# ---- the command line


def test_generate_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = command(capsys, "generate", PROMPT, "--max-new-tokens", 3, "--json")
    assert (status, err) == (0, "")
    assert list(json.loads(out)) == ["prompt", "text", "ids", "logprobs", "finish_reason"]
    assert len(out.splitlines()) == 1


def test_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "logits", PROMPT, "--top", 3, "--json")[0] == 0
    status, out, _ = command(capsys, "score", PROMPT, "--json")
    assert status == 0
    assert {"bits_per_byte", "perplexity"} <= json.loads(out).keys()
    assert command(capsys, "info", "--model", "tales")[0] == 0
    for name, options in (("parity", ["--model", "--device", "--json"]), ("train", ["--out", "--steps", "--resume"])):
        status, out, _ = command(capsys, name, "--help")
        assert status == 0
        assert all(option in out for option in options)


@pytest.mark.parametrize(
    "arguments", [["generate", PROMPT, "--temperature", "-1"], ["score", "a", "--model", "/nowhere"], ["nonsense"]]
)
def test_a_mistake_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = command(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_num_return_sequences_is_a_keyword_of_its_own() -> None:
    assert "num_return_sequences" in inspect.signature(GPT2.generate).parameters
