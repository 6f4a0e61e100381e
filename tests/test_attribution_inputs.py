"""Attribution by token, against captum's figures, finite differences and the identities that each method has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attribution_models import CLEAN, tiny

from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy, log_probability, logit_difference, readings
from gpt2_np.internals import attribution, page

GOLDEN = json.loads((Path(__file__).parent / "golden" / "captum.json").read_text())
METRIC = logit_difference(*GOLDEN["tokens"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"model {case['model']}")
@pytest.mark.parametrize("method", ["saliency", "input_x_gradient", "integrated_gradients", "occlusion"])
def test_scores_are_captum_s(case: dict[str, Any], method: str) -> None:
    found = attribution.inputs(tiny(case["model"]), case["ids"], METRIC, method, steps=GOLDEN["steps"])
    loose = method == "integrated_gradients"  # captum keeps the steps' weights in float32
    np.testing.assert_allclose(found.scores, case["scores"][method], rtol=2e-7 if loose else 1e-9, atol=1e-11)
    assert found.method == method
    np.testing.assert_array_equal(found.ids, case["ids"])


@pytest.mark.parametrize("metric", [METRIC, log_probability(3), cross_entropy()], ids=["difference", "log p", "loss"])
def test_integrated_gradients_add_up_to_the_metric_s_difference(metric: Any) -> None:
    model = tiny(4)
    found = attribution.inputs(model, CLEAN, metric, "integrated_gradients", steps=200)
    nothing, _ = model.run_with_edits(CLEAN[None], {"embed": np.zeros((1, len(CLEAN), 16))})
    assert found.value == pytest.approx(float(metric.value(model(CLEAN[None]), CLEAN[None])[0]))
    assert found.baseline == pytest.approx(float(metric.value(nothing, CLEAN[None])[0]))
    assert found.scores.sum() == pytest.approx(found.value - found.baseline, rel=1e-6)
    assert abs(found.error) < 1e-6
    rough = attribution.inputs(model, CLEAN, metric, "integrated_gradients", steps=2)
    assert abs(rough.error) > 10 * abs(found.error)


def test_steps_and_places_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    whole = {
        name: attribution.inputs(model, CLEAN, METRIC, name, steps=7) for name in ("integrated_gradients", "occlusion")
    }
    monkeypatch.setitem(attribution.inputs.__globals__, "TOKENS_PER_RUN", 12)
    told: list[int] = []
    for name, one in whole.items():
        few = attribution.inputs(model, CLEAN, METRIC, name, steps=7, progress=told.append)
        np.testing.assert_allclose(few.scores, one.scores, rtol=1e-12)
    assert told == [7, 6]


def test_saliency_is_the_steepest_that_the_metric_can_rise() -> None:
    model = tiny()
    found = attribution.inputs(model, CLEAN, METRIC)
    embedding, step = model.params.wte[CLEAN][None], 1e-5
    gradient = model.run_with_gradients(CLEAN, METRIC, "embed").grads["embed"]
    for at in range(len(CLEAN)):
        direction = np.zeros_like(embedding)
        direction[0, at] = gradient[0, at] / np.linalg.norm(gradient[0, at])
        up, down = (
            METRIC.value(model.run_with_edits(CLEAN[None], {"embed": embedding + by * direction})[0])[0]
            for by in (step, -step)
        )
        assert found.scores[at] == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_attention_roll_out_is_a_product_of_patterns() -> None:
    model = tiny(3)
    found = attribution.inputs(model, CLEAN, METRIC, "attention_rollout")
    _, cache = model.run_with_cache(CLEAN)
    share = [0.0] * len(CLEAN)

    def walk(layer: int, at: int, weight: float) -> None:
        if layer < 0:
            share[at] += weight
            return
        walk(layer - 1, at, weight / 2)
        for key in range(at + 1):
            walk(layer - 1, key, weight / 2 * cache["pattern", layer][0, :, at, key].mean())

    walk(2, len(CLEAN) - 1, 1.0)
    np.testing.assert_allclose(found.scores, share, rtol=1e-12)
    assert found.scores.sum() == pytest.approx(1)
    early = attribution.inputs(model, CLEAN, logit_difference(4, 11, position=2), "attention_rollout")
    assert not early.scores[3:].any()


def test_a_text_has_a_score_for_each_token() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    text = "The boy was sad because"
    plain = attribution.inputs(model, text, logit_difference(" he", " she"), "occlusion")
    assert model.tokenizer.decode(plain.ids.tolist()) == text
    assert plain.scores.argmax() == 1  # 'boy'
    started = attribution.inputs(model, text, logit_difference(" he", " she"), prepend_bos=True)
    assert len(started.scores) == len(plain.scores) + 1
    reduced = attribution.inputs(
        GPT2.from_pretrained(dtype="int8", backend="numpy"), text, logit_difference(" he", " she"), "occlusion"
    )
    assert reduced.scores.argmax() == 1


def test_the_page_shows_what_each_word_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT2.from_pretrained(backend="numpy")
    monkeypatch.setattr(readings, "CACHED", 32)  # two readings at a time

    def owed(shown: GPT2) -> dict[str, Any]:
        html = page.inspect_page(shown, "The boy was sad")
        data = json.loads(html.split('type="application/json">')[1].split("</script>")[0])
        found: dict[str, Any] = data["owed"]
        return found

    table = owed(model)
    assert list(table) == ["0", "1", "2", "3"]
    ids = model.tokenizer.encode("The boy was")
    first, second = np.argsort(-model.run_with_cache(ids)[0][-1])[:2].tolist()
    found = attribution.inputs(model, ids, logit_difference(first, second), "input_x_gradient")
    np.testing.assert_allclose(table["2"]["scores"], found.scores, atol=2e-3)
    assert [table["2"]["token"], table["2"]["other"]] == model.tokenizer.tokens([first, second])
    monkeypatch.setattr(page, "MOST_OWED", 3)
    assert list(owed(model)) == ["3"]
    assert owed(model.with_edits({"blocks.0.mlp_out": lambda x: x})) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "smoothgrad"}, "method must be one of saliency, .* got 'smoothgrad'"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"ids": [[1, 2], [3, 4]]}, "those of one prompt"),
        ({"ids": []}, "ids must be whole numbers"),
        ({"metric": np.mean}, "a metric needs a method value"),
    ],
)
def test_what_can_t_be_is_said_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attribution.inputs(tiny(), **({"ids": CLEAN, "metric": METRIC} | change))
