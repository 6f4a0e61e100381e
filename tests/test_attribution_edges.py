"""Attribution by edge and circuits, against the reference implementation of EAP-IG, torch.autograd and exact patching.

``golden/eap_ig.safetensors`` holds what github.com/hannamw/EAP-IG (commit 795f560, with transformer-lens 2.18.0 and
torch 2.13.0, in float64) says of the models in ``tiny_models``: it patches the corrupted run's messages into the clean
run, so "swapped" is what it says with the prompts of each pair exchanged.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from attribution_models import CLEAN, CORRUPTED, tiny
from safetensors.numpy import load_file

from gpt2_np import GPT2
from gpt2_np.gradients import cross_entropy, logit_difference
from gpt2_np.internals import attribution
from gpt2_np.internals.attribution import graph
from gpt2_np.model.config import Config
from gpt2_np.session.model import Model

METRIC = logit_difference(4, 11)
METHODS = ["eap", "eap-ig", "eap-ig-activations", "relp"]


@cache
def golden(number: int) -> dict[str, np.ndarray]:
    table = load_file(Path(__file__).parent / "golden" / "eap_ig.safetensors")
    return {name[2:]: x for name, x in table.items() if name.startswith(f"{number}.")}


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(
    ("method", "theirs", "sign"),
    [
        ("eap", "EAP.swapped", 1),
        ("eap-ig", "EAP-IG-inputs.straight", -1),
        ("eap-ig-activations", "EAP-IG-activations.swapped", 1),
    ],
)
def test_every_edge_has_the_reference_s_score(number: int, method: str, theirs: str, sign: int) -> None:
    known = golden(number)
    found = attribution.edges(tiny(number), known["clean"], known["corrupted"], METRIC, method, steps=5)
    np.testing.assert_allclose(found.scores, sign * known[theirs], rtol=1e-11, atol=1e-13)
    assert found.scores.shape == (len(found.senders), len(found.receivers))


@pytest.mark.parametrize("number", [2, 3])
def test_exact_patching_of_every_edge_is_the_reference_s(number: int) -> None:
    known = golden(number)
    exact = attribution.exact_edges(tiny(number), known["clean"], known["corrupted"], METRIC)
    np.testing.assert_allclose(exact.scores, known["exact.swapped"], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("n", [5, 20, 40])
def test_circuits_are_pruned_and_run_as_the_reference_does(number: int, n: int) -> None:
    known = golden(number)
    circuit = attribution.edges(tiny(number), known["clean"], known["corrupted"], METRIC).circuit(n)
    np.testing.assert_array_equal(circuit.edges, known[f"circuit.{n}.mask"])
    np.testing.assert_allclose(circuit.value(), known[f"circuit.{n}.value"], rtol=1e-12)


def test_the_json_is_the_reference_s_and_comes_back(tmp_path: Path) -> None:
    known = golden(2)
    found = attribution.edges(tiny(2), known["clean"], known["corrupted"], METRIC)
    circuit = found.circuit(20)
    mine, theirs = json.loads(circuit.to_json(tmp_path / "a.json")), json.loads(known["json"].tobytes())
    assert mine["cfg"] == theirs["cfg"]
    assert mine["nodes"] == theirs["nodes"]
    assert mine["edges"].keys() == theirs["edges"].keys()
    for name, edge in theirs["edges"].items():
        assert mine["edges"][name]["in_graph"] == edge["in_graph"], name
        assert mine["edges"][name]["score"] == pytest.approx(edge["score"], rel=1e-6, abs=1e-9)  # theirs may be float32
    again = found.circuit(3).from_json((tmp_path / "a.json").read_text())
    np.testing.assert_array_equal(again.edges, circuit.edges)
    np.testing.assert_array_equal(again.scores, circuit.scores)
    other = attribution.edges(tiny(3), CLEAN, CORRUPTED, METRIC).circuit(3)
    for text in (circuit.to_json(), "{}", "[]", "no", '{"cfg": {}, "edges": {}}', '{"cfg": 1, "edges": {"a": 1}}'):
        with pytest.raises(ValueError, match=r"a circuit needs cfg and edges|no circuit of the model"):
            other.from_json(text)


def test_a_circuit_of_all_edges_is_exactly_the_clean_run() -> None:
    for model in (tiny(3), GPT2.from_pretrained(backend="numpy")):
        found = attribution.edges(model, CLEAN, CORRUPTED, METRIC)
        whole = found.circuit(10**9)
        assert len(whole) == graph.there(model.config).sum()
        np.testing.assert_array_equal(whole.run(), model(CLEAN))
        np.testing.assert_array_equal(whole.run(CLEAN), model.run_with_cache(CLEAN)[0])
        assert whole.faithfulness() == 1.0
        without = whole.edges.copy()
        without[0, -1] = False
        assert (whole.with_edges(without).run() != model(CLEAN)).any()  # the run of a circuit does go through its edges
        nothing = whole.with_edges(np.zeros_like(whole.edges))
        np.testing.assert_allclose(nothing.run(), model(CORRUPTED), rtol=1e-4, atol=1e-4)
        assert abs(nothing.faithfulness()) < 1e-4


def linear(name: str, x: np.ndarray) -> np.ndarray:
    """A tensor of a model that is linear: patterns are the same everywhere, norms divide by a constant."""
    if name.endswith("c_attn.weight"):
        x = x.copy()
        x[:, : 2 * len(x)] = 0
    return x * 1e6 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")) else x


@pytest.mark.parametrize("method", ["eap", "eap-ig", "relp"])
def test_on_a_linear_model_every_method_is_exact(method: str) -> None:
    model = tiny(3, linear, activation_function="linear", layer_norm_epsilon=1e12)
    exact = attribution.exact_edges(model, CLEAN, CORRUPTED, METRIC)
    found = attribution.edges(model, CLEAN, CORRUPTED, METRIC, method)
    np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-7, atol=1e-9 * np.abs(exact.scores).max())
    assert attribution.agreement(found, exact)["edges"] == pytest.approx(1)
    nodes = attribution.nodes(model, CLEAN, CORRUPTED, METRIC, names=["*.resid_pre", "*.attn.z", "*.mlp_out"])
    by_node = attribution.exact_nodes(model, CLEAN, CORRUPTED, METRIC, names=["*.resid_pre", "*.attn.z", "*.mlp_out"])
    for name, x in by_node.scores.items():
        np.testing.assert_allclose(nodes.scores[name], x, rtol=1e-7, atol=1e-9)


def test_edges_of_one_step_are_those_of_the_corrupted_run() -> None:
    model = tiny()
    plain = attribution.edges(model, CLEAN, CORRUPTED, METRIC).scores
    one = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig", steps=1).scores
    np.testing.assert_allclose(one, plain, rtol=1e-10, atol=1e-14)
    apart = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig-activations", steps=1).scores
    np.testing.assert_allclose(apart[:, -1], plain[:, -1], rtol=1e-10)  # nothing that is set lies behind this receiver
    assert np.abs(apart[:, 0] - plain[:, 0]).max() > 1e-4


def test_the_edges_into_the_logits_of_relp_are_direct_attributions() -> None:
    model = tiny(3)
    found = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "relp")
    _, corrupted = model.run_with_cache(CORRUPTED[None])
    _, clean = model.run_with_cache(CLEAN[None])
    heads = [run.stack_head_results()[0] for run in (clean, corrupted)]
    direct = corrupted.logit_attrs(heads[0] - heads[1], 4, 11)[:, 0, -1]
    rows = [i for i, name in enumerate(found.senders) if ".h" in name]
    np.testing.assert_allclose(found.scores[rows, -1], direct, rtol=1e-10, atol=1e-13)
    queries = [i for i, name in enumerate(found.receivers) if name.endswith(("<q>", "<k>"))]
    assert not found.scores[:, queries].any()
    assert found.scores[0, found.receivers.index("a0.h0<v>")]


@pytest.mark.parametrize("method", METHODS)
def test_a_data_set_of_pairs_is_each_of_them(method: str) -> None:
    model, rng = tiny(2), np.random.default_rng(0)
    clean = [rng.integers(0, 20, size) for size in (5, 3, 5)]
    corrupted = [rng.integers(0, 20, len(row)) for row in clean]
    right, wrong = np.array([1, 2, 3]), np.array([4, 5, 6])
    whole = attribution.edges(model, clean, corrupted, logit_difference(right, wrong), method, steps=3)
    each = [
        attribution.edges(model, clean[i], corrupted[i], logit_difference(int(right[i]), int(wrong[i])), method, 3)
        for i in range(3)
    ]
    alone = np.stack([one.scores for one in each])
    np.testing.assert_allclose(whole.scores, alone.mean(0), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(whole.spread, alone.std(0), rtol=1e-9, atol=1e-13)
    circuit = whole.circuit(20)
    singles = [one.circuit(1).with_edges(circuit.edges).value()[0] for one in each]
    np.testing.assert_allclose(circuit.value(), singles, rtol=1e-9)
    with pytest.raises(ValueError, match=r"must have equally many tokens, got \[3, 5\]"):
        circuit.run()


def test_a_long_prompt_is_summed_some_positions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    whole = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig")
    monkeypatch.setattr(import_module("gpt2_np.internals.attribution.edges"), "POSITIONS_PER_SUM", 4)
    apart = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig")
    np.testing.assert_allclose(apart.scores, whole.scores, rtol=1e-12, atol=1e-15)


def test_what_a_circuit_leaves_out_may_be_a_mean_or_nothing() -> None:
    model = tiny(3)
    circuit = attribution.edges(model, [CLEAN, CLEAN[:4]], [CORRUPTED, CORRUPTED[:4]], METRIC).circuit(30)
    _, one = model.run_with_cache(CORRUPTED[None], "embed")
    means = attribution.circuit_run.written(model, circuit.pairs.corrupted, "mean")
    rows = np.concatenate([model.params.wte[CORRUPTED], model.params.wte[CORRUPTED[:4]]])
    np.testing.assert_allclose(means[0, 0, 0], rows.mean(0), rtol=1e-12)
    assert one["embed"].shape[1:] == (6, 16)
    for ablation in ("mean", "zero"):
        whole = circuit.with_edges(graph.there(model.config))
        assert whole.faithfulness(ablation) == 1.0
        assert circuit.with_edges(np.zeros_like(circuit.edges)).faithfulness(ablation) == 0.0
        assert np.isfinite(circuit.faithfulness(ablation))
        other = circuit.run(np.array([1, 2, 3]), ablation=ablation)
        assert other.shape == (3, model.config.vocab_size)
    everything = circuit.with_edges(graph.there(model.config)).run([[1, 2], [3, 4]], ablation="zero")
    np.testing.assert_array_equal(everything, model(np.array([[1, 2], [3, 4]])))


def test_other_prompts_run_through_a_circuit() -> None:
    model = GPT2.from_pretrained(backend="numpy")
    found = attribution.edges(
        model, "The boy was sad because", "The girl was sad because", logit_difference(" he", " she")
    )
    circuit = found.circuit(200)
    mine = circuit.run("The king was sad because", "The queen was sad because")
    assert mine.shape == (5, model.config.vocab_size)
    beside = circuit.run("The king was sad because")  # beside the corrupted prompt that it was found by
    assert (beside != mine).any()
    with pytest.raises(ValueError, match="got 3 tokens and 5: give corrupted as well"):
        circuit.run("The king was")
    started = circuit.run("The king was", "The queen was", prepend_bos=True)
    assert len(started) == 4


def test_a_pruned_circuit_has_no_loose_ends() -> None:
    rng, config = np.random.default_rng(0), tiny(3).config
    for _ in range(20):
        some = rng.random(graph.there(config).shape) < 0.1
        left = graph.pruned(some, config)
        assert not (left & ~(some & graph.there(config))).any()
        names, reading = graph.senders(config), graph.reads(config)
        for s in np.flatnonzero(left.any(axis=1))[1:]:
            assert left[:, reading[s]].any(), names[s]
        for s, r in np.argwhere(left):
            reader = np.flatnonzero(reading[:, r])
            assert r == left.shape[1] - 1 or left[reader[0]].any(), (s, r)


def test_the_size_of_gpt2_small_s_graph_is_the_benchmark_s() -> None:
    assert graph.there(Config()).sum() == 32491
    assert len(graph.senders(Config())) == 157
    assert graph.receivers(Config())[-1] == "logits"


def test_the_areas_are_the_benchmark_s() -> None:
    model = tiny(3)
    found = attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig")
    curve = attribution.curve(found, shares=(0.1, 0.3, 0.6, 1.0))
    f = [found.circuit(int(share * 100)).faithfulness() for share in curve.shares]
    np.testing.assert_array_equal(curve.faithfulness, f)
    assert curve.edges[-1] == 100
    by_hand = 0.2 * (f[0] + f[1]) / 2 + 0.3 * (f[1] + f[2]) / 2 + 0.4 * (f[2] + f[3]) / 2
    assert curve.cpr == pytest.approx(by_hand)
    above = [abs(1 - one) for one in f]
    by_hand = 0.2 * (above[0] + above[1]) / 2 + 0.3 * (above[1] + above[2]) / 2 + 0.4 * (above[2] + above[3]) / 2
    assert curve.cmd == pytest.approx(by_hand)
    with pytest.raises(ValueError, match=r"shares must rise within \(0, 1\], got \[0.5, 0.1\]"):
        attribution.curve(found, (0.5, 0.1))


def test_exact_nodes_are_patched_one_by_one() -> None:
    model = tiny()
    found = attribution.exact_nodes(model, [CLEAN, CORRUPTED], [CORRUPTED, CLEAN], cross_entropy(), names="*.attn.z")
    _, clean = model.run_with_cache(CLEAN[None], "*.attn.z")
    z = model.run_with_cache(CORRUPTED[None], "*.attn.z")[1]["blocks.1.attn.z"].copy()
    z[0, 4, 1] = clean["blocks.1.attn.z"][0, 4, 1]
    logits, _ = model.run_with_edits(CORRUPTED[None], {"blocks.1.attn.z": z})
    effect = cross_entropy().value(logits, CORRUPTED[None]) - found.corrupted[0]
    other = attribution.exact_nodes(model, CLEAN, CORRUPTED, cross_entropy(), names="*.attn.z")
    assert other.scores["blocks.1.attn.z"][4, 1] == pytest.approx(effect[0], rel=1e-12)
    assert found.clean[0] == pytest.approx(found.corrupted[1])
    with pytest.raises(ValueError, match=r"by position, or position and head; blocks.0.mlp.post has B T F"):
        attribution.exact_nodes(model, CLEAN, CORRUPTED, METRIC, names="blocks.0.mlp.post")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED[:3], METRIC), "equally many tokens, got 6 in"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, max), "a metric needs a method value"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC, "ig"), "method must be one of eap, eap-ig"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC, "eap-ig", 0), "steps must be .* got 0"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC).circuit(), "needs n, the number"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC).circuit(3, threshold=1), "and not both"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC).circuit(-1), "at least 0, got -1"),
        (lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC).circuit(3).run(ablation="x"), "got 'x'"),
        (
            lambda model: (
                attribution.edges(
                    model.with_edits({"blocks.0.mlp_out": np.zeros((1, 6, 16))}), CLEAN, CORRUPTED, METRIC
                )
                .circuit(3)
                .run()
            ),
            "a model without edits",
        ),
        (
            lambda model: attribution.edges(model, CLEAN, CORRUPTED, METRIC).circuit(3).with_edges(np.ones((7, 15))),
            "edges must be",
        ),
    ],
)
def test_what_can_t_be_is_said_in_one_line(ask: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(tiny(2))  # type: ignore[operator]


def test_a_threshold_and_the_best_edges_agree() -> None:
    found = attribution.edges(tiny(3), CLEAN, CORRUPTED, METRIC)
    sizes = np.sort(np.abs(found.scores[graph.there(found.model.config)]))[::-1]
    by_number = found.circuit(12, prune=False)
    np.testing.assert_array_equal(found.circuit(threshold=float(sizes[11]), prune=False).edges, by_number.edges)
    top = found.top(12)
    assert {f"{s}->{r}" for s, r, _ in top} == set(by_number.names)
    assert [abs(score) for *_, score in top] == pytest.approx(sizes[:12])
    raising = found.circuit(5, absolute=False, prune=False)
    assert (found.scores[raising.edges] > 0).all()
    assert set(raising.nodes) <= set(found.senders)


def test_reduced_precision_models_have_edges_too(tmp_path: Path) -> None:
    model: Model = GPT2.from_pretrained(dtype="int8", backend="numpy")
    found = attribution.edges(model, "A boy ran", "A girl ran", logit_difference(" he", " she"))
    assert np.isfinite(found.scores).all()
    assert found.scores.any()
    assert np.isfinite(found.circuit(100).faithfulness())
