"""Pictures show the numbers that they were given, and label them with what can be printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from golden_transformer_lens import as_loaded, golden

from gpt2_np.internals import lens, neurons, plots
from gpt2_np.internals.lens import logit_lens
from gpt2_np.internals.neurons import dashboards
from gpt2_np.internals.patching import Patching, activation_patch
from gpt2_np.internals.variants import logit_difference


def image(figure) -> np.ndarray:
    return figure.axes[0].get_images()[0].get_array().data


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def decode(ids: list[int]) -> str:
    return "".join(f"${token}\n" for token in ids)


def test_a_sweep_is_drawn_cell_by_cell() -> None:
    clean, corrupted = golden()["clean"][0], golden()["corrupted"][0]
    result = activation_patch(as_loaded(), clean, corrupted, logit_difference(5, 9))
    figure = plots.patching(result, [decode([token]) for token in corrupted])
    np.testing.assert_array_equal(image(figure), result.restored)
    assert labels(figure.axes[0].xaxis)[0] == rf"\${corrupted[0]}↵"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("position", "layer")
    with pytest.raises(ValueError, match="a picture has two axes, got a sweep over layer, head, position"):
        plots.patching(Patching(np.zeros((2, 2, 8)), ("layer", "head", "position"), 1.0, 0.0))


def test_heat_keeps_zero_white_and_survives_what_is_not_a_number() -> None:
    values = np.array([[0.0, -2.0], [np.nan, 1.0]])
    shown = plots.heat(values, title="", x="", y="", numbers=True).axes[0].get_images()[0]
    assert (shown.norm.vmin, shown.norm.vmax) == (-2, 2)
    plots.heat(np.full((1, 1), np.nan), title="", x="", y="")


def test_the_lens_writes_the_likeliest_token_into_its_cell() -> None:
    model, ids = as_loaded(), golden()["ids"][0]
    looked = logit_lens(model, ids)
    axes = plots.lens(looked, [str(token) for token in ids], decode).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    best = looked.logits.argmax(-1)
    assert written == {
        (at, len(best) - 1 - row): plots.visible(decode([best[row, at]])) for row, at in np.ndindex(*best.shape)
    }


def test_bars_lines_points_scores_and_dashboards(tmp_path: Path) -> None:
    figure = plots.bars([1.0, -3.0, 2.0], ["a", "b", "c"], title="", x="", top=2)
    assert labels(figure.axes[0].yaxis) == ["c", "b"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [2.0, -3.0]
    figure = plots.lines({"one": np.arange(3), "two": np.ones(3)}, title="", x="", y="")
    assert [line.get_ydata().tolist() for line in figure.axes[0].get_lines()] == [[0, 1, 2], [1, 1, 1]]
    points = plots.eigenvalues(np.array([1 + 2j, -1j]), title="").axes[0].collections[0].get_offsets()
    assert points.tolist() == [[1, 2], [0, -1]]
    scores = {"induction": np.eye(2), "previous_token": np.ones((2, 2))}
    figure = plots.all_head_scores(scores)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["induction", "previous token"]
    board = dashboards(as_loaded(), list(golden()["ids"]), [(1, 3)], context=2)[0]
    figure = plots.dashboard(board, decode)
    assert f"{board.examples[0].value:.1f}" in [text.get_text() for text in figure.axes[1].texts]
    for name in ("board.png", "board.svg", "board.pdf"):
        plots.save(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_an_empty_bin_has_no_bar_and_a_silent_neuron_no_places() -> None:
    counts = np.array([0, 5, 0, 1])
    board = neurons.Dashboard(1, 2, [], counts, np.linspace(-1, 11, 5), 0.0, [0], [1])
    upper, lower = plots.dashboard(board, lambda ids: "a").axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in upper.patches] == [(3.5, 5), (9.5, 1)]
    assert upper.get_ylim()[0] < 1  # a bin of one is seen
    assert [text.get_text() for text in lower.texts] == ["it fires nowhere in this corpus"]


def test_attention_lens_and_page_speak_one_language_of_colours() -> None:
    """White is nothing, red is much: one scale in every picture of shares, and the page's own colour."""
    page = (Path(plots.__file__).parent / "page.html").read_text()
    red = tuple(int(part) / 255 for part in re.search(r"--warm: (\d+) (\d+) (\d+);", page).groups())
    looked = lens.Lens(np.zeros(2, int), ["0_pre", "final"], np.zeros((2, 2, 5), np.float32))
    drawn = [
        plots.attention(np.eye(2), ["a", "b"], title="x"),
        plots.lens(looked, ["a", "b"], lambda ids: "a"),
        plots.head_scores(np.eye(2), title="x"),
        plots.all_head_scores({"x": np.eye(2)}),
    ]
    for figure in drawn:
        (image,) = figure.axes[0].images
        np.testing.assert_allclose(image.cmap(0.0)[:3], (1, 1, 1))
        np.testing.assert_allclose(image.cmap(1.0)[:3], red, atol=1e-6)


def test_a_picture_without_a_kind_is_refused(tmp_path: Path) -> None:
    figure = plots.bars([1.0], ["a"], title="", x="")
    with pytest.raises(ValueError, match=r"a picture needs a name that says its kind, like figure.png, got '.*'"):
        plots.save(figure, tmp_path / "picture")
    with pytest.raises(ValueError, match="Format 'xyz' is not supported"):
        plots.save(figure, tmp_path / "picture.xyz")
    assert not list(tmp_path.iterdir())


def test_tokens_are_made_visible() -> None:
    assert plots.visible(" a\n\t$") == r"␣a↵⇥\$"
    assert plots.visible("\x00\ud800") == "··"
    assert plots.visible("") == "∅"
