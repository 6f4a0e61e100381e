"""The fused step against the step-by-step forward pass: the same bits, whatever the weights are kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference import random_ids, reference_model, save

from gpt2_np.engine import decode_step, kernels, layout
from gpt2_np.model import forward as model
from gpt2_np.model.cache import KVCache
from gpt2_np.session.model import DTYPES, Model


def logits(forward, loaded: Model, ids: np.ndarray) -> list[np.ndarray]:
    """A prompt of five ids for two rows, two single steps, three ids at once, and a row alone."""
    cache = KVCache(loaded.config, 2, 12)
    run = [forward(ids[:, :5], cache), forward(ids[:, 5:6], cache), forward(ids[:, 6:7], cache)]
    cache.rewind([0, 2])
    return [*run, forward(ids[:, 7:10], cache), forward(ids[1:, 10:11], cache.row(1))]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose widths are whole groups, as int4 wants them."""
    return save(reference_model(n_embd=64, n_head=4), tmp_path_factory.mktemp("wide"))


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float64"])
def test_fused_and_single_operations_give_the_same_bits(wide: Path, dtype: str) -> None:
    loaded = Model.from_pretrained(wide, dtype=dtype)
    params, config, ids = layout.packed(loaded.params), loaded.config, random_ids(2, 12)
    assert decode_step.supported(params, config)
    fused = logits(lambda part, cache: decode_step.forward(params, config, part, cache=cache), loaded, ids)
    single = logits(lambda part, cache: model.forward(params, config, part, cache=cache, ops=kernels), loaded, ids)
    for one, other in zip(fused, single, strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_ids_at_once_give_the_bits_of_one_by_one(small: Path) -> None:
    loaded, ids = Model.from_pretrained(small), random_ids(1, 20)
    one, many = loaded.start(), loaded.start()
    prompt = ids[:, :4]
    singly = [one.feed(prompt), *(one.feed(ids[:, t : t + 1]) for t in range(4, 20))]
    many.feed(prompt)
    together = many.feed_all(ids[:, 4:])[0]
    np.testing.assert_array_equal(np.concatenate(singly)[1:], together)


def test_what_was_prepared_is_prepared_anew_for_other_rows_and_other_parameters(small: Path) -> None:
    loaded, ids = Model.from_pretrained(small), random_ids(3, 12)
    params, config = layout.packed(loaded.params), loaded.config
    other = params._replace(h=params.h[::-1])
    caches = [KVCache(config, 1, 12) for _ in range(2)]
    fused = [decode_step.forward(params, config, ids[:1, :4], cache=caches[0])]
    single = [model.forward(params, config, ids[:1, :4], cache=caches[1], ops=kernels)]
    for rows, width, these in (([0, 0, 0], 1, params), ([2, 0], 1, params), ([1, 0], 1, other), ([0, 1], 2, other)):
        for cache in caches:
            cache.reorder(rows)
        part = ids[: len(rows), 4 : 4 + width]
        fused.append(decode_step.forward(these, config, part, cache=caches[0]))
        single.append(model.forward(these, config, part, cache=caches[1], ops=kernels))
    for one, two in zip(fused, single, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_it_leaves_to_the_general_way(small: Path) -> None:
    loaded = Model.from_pretrained(small)
    params, config = layout.packed(loaded.params), loaded.config
    oracle = Model.from_pretrained(small, dtype="float64")
    assert not decode_step.supported(oracle.params, config)
    assert not decode_step.supported(params._replace(h=(loaded.params.h[0], *params.h[1:])), config)
    assert not decode_step.supported(params._replace(wte=np.asfortranarray(params.wte)), config)
    # Every layer is read as the first is, wherever it lies.
    reduced = Model.from_pretrained(small, dtype="bfloat16").params
    for last in (reduced.h[1], params.h[1]._replace(ln_1=params.h[1].ln_1._replace(bias=np.zeros(1, np.float32)))):
        assert not decode_step.supported(params._replace(h=(params.h[0], last)), config)
    assert decode_step.supported(params._replace(lm_head=reduced.lm_head), config)
    for other in (oracle.params, params._replace(lm_head=oracle.params.lm_head), params._replace(h=loaded.params.h)):
        assert not decode_step.supported(other, config)
    mixed = params.h[0]._replace(mlp=reduced.h[0].mlp)
    assert not decode_step.supported(params._replace(h=(mixed, mixed)), config)


def test_a_vocabulary_may_have_a_precision_of_its_own(small: Path) -> None:
    loaded, ids = Model.from_pretrained(small), random_ids(2, 5)
    head = Model.from_pretrained(small, dtype="int8").params.lm_head
    params, config = layout.packed(loaded.params)._replace(lm_head=head), loaded.config
    for last_only in (False, True):
        one = decode_step.forward(params, config, ids, cache=KVCache(config, 2, 5), last_only=last_only)
        other = model.forward(params, config, ids, cache=KVCache(config, 2, 5), ops=kernels, last_only=last_only)
        np.testing.assert_array_equal(one, other)


def test_token_types_are_added(small: Path) -> None:
    loaded, ids = Model.from_pretrained(small), random_ids(2, 5)
    params, config, kinds = layout.packed(loaded.params), loaded.config, random_ids(2, 5)[::-1]
    one = decode_step.forward(params, config, ids, cache=KVCache(config, 2, 5), token_type_ids=kinds)
    other = model.forward(params, config, ids, cache=KVCache(config, 2, 5), ops=kernels, token_type_ids=kinds)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, decode_step.forward(params, config, ids, cache=KVCache(config, 2, 5)))


def test_what_is_missing_beside_numba_is_told_at_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*kinds: str) -> None:
        raise ImportError("no module named elsewhere")

    loaded = Model.from_pretrained(small)
    monkeypatch.setattr(decode_step, "compiled_forward", missing)
    with pytest.raises(ImportError, match="no module named elsewhere"):
        decode_step.ready(loaded.params, loaded.config)
    monkeypatch.setattr(decode_step.available, "loads", lambda: False)
    assert not decode_step.ready(loaded.params, loaded.config)
