"""`gpt2-np internals jacobian-lens` and `merge-lenses`: fitted in parts, gone on with, looked through, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gpt2_np import GPT2
from gpt2_np.cli import cli
from gpt2_np.internals import jacobian_lens
from gpt2_np.internals.corpus import read_corpus

pytestmark = pytest.mark.usefixtures("one_thread")

STORY = "Once upon a time there was a king who had three sons. The king said to his sons: go and find me a bird. "
CUT = ["--length", "22"]


def run(*arguments: str | Path) -> str:
    given = ["internals", *(str(one) for one in arguments)]
    return CliRunner().invoke(cli, given, catch_exceptions=False, standalone_mode=False).stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text(STORY * 6)
    return tmp_path / "corpus.txt"


def test_a_lens_is_fitted_in_parts_and_looked_through(corpus: Path, tmp_path: Path) -> None:
    one, other, both = (tmp_path / name for name in ("one", "other", "both"))
    said = json.loads(run("jacobian-lens", corpus, one, *CUT, "--texts", "2", "--json", "--out", tmp_path / "fit.png"))
    assert (said["texts"], said["offered"]) == (2, 2)
    L = GPT2.from_pretrained().config.n_layer
    for curve in ("logit lens", "Jacobian lens"):
        assert np.shape(said[curve]) == (L,)
        assert said[curve][0] > 0 == said[curve][-1]
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    table = run("jacobian-lens", corpus, other, *CUT, "--skip-texts", "2", "--texts", "1")
    assert "1 texts" in table
    assert "final_post  logit lens" in table
    assert "3 texts" in run("merge-lenses", both, one, other)
    run("jacobian-lens", corpus, one, *CUT, "--texts", "3", "--resume")

    gpt2 = GPT2.from_pretrained(backend="numpy")
    texts = list(read_corpus(corpus, gpt2.tokenizer, length=22))[:3]
    whole = jacobian_lens.fit(gpt2, texts, length=22)
    np.testing.assert_array_equal(jacobian_lens.load(one).total, whole.total)
    np.testing.assert_allclose(jacobian_lens.load(both).jacobian, whole.jacobian, atol=1e-12)

    looked = json.loads(run("lens", STORY, "--jacobian", both, "--json", "--out", tmp_path / "lens.png"))
    plain = json.loads(run("lens", STORY, "--json"))
    assert looked["labels"] == plain["labels"][1:]
    assert looked["top"][-1] == plain["top"][-1]
    assert looked["top"][0] != plain["top"][1]


def test_what_cannot_be_is_refused_before_work(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    for arguments, why in [
        (["jacobian-lens", corpus, tmp_path / "there"], "is there already: --resume goes on with it"),
        (["jacobian-lens", corpus, tmp_path / "there", "--resume"], "is not a Jacobian lens"),
        (["jacobian-lens", corpus, tmp_path / "new", "--length", "17"], "length must be between 18 and 512"),
        (["merge-lenses", tmp_path / "new", tmp_path / "there"], "is not a Jacobian lens"),
        (["merge-lenses", tmp_path / "there", tmp_path / "there"], "is there already: name another file"),
        (["merge-lenses", tmp_path / "new", tmp_path / "there", "--out", tmp_path / "a.png"], "draws no picture"),
        (["lens", "a", "--jacobian", tmp_path / "there", "--tuned", tmp_path / "there"], "give one of them"),
        (["lens", "a", "--jacobian", tmp_path / "there"], "is not a Jacobian lens"),
    ]:
        with pytest.raises(ValueError, match=why):
            run(*arguments)
    assert not (tmp_path / "new").exists()
