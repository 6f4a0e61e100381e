"""The cache against the plainest one there could be: a list of positions for each row."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_np.model.cache import KVCache
from gpt2_np.model.config import Config

CONFIG = Config(vocab_size=9, n_positions=12, n_embd=4, n_layer=2, n_head=2)


def check(cache: KVCache, rows: list[list[int]]) -> None:
    assert cache.lengths.tolist() == [len(row) for row in rows]
    for layer in range(CONFIG.n_layer):
        assert cache.k[layer].flags.c_contiguous
        for b, row in enumerate(rows):
            for array, sign in ((cache.k, 1), (cache.v, -1)):
                expected = np.array(row, np.float32)[None, :, None] * np.full((2, 1, 2), sign * (layer + 1), np.float32)
                np.testing.assert_array_equal(array[layer, b, :, : len(row)], expected)
    for a, one in enumerate(rows):
        for b, other in enumerate(rows):
            same = int(cache.shared[a, b]) if a != b else 0
            assert one[:same] == other[:same]
            assert same <= min(len(one), len(other))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_rows_that_grow_move_and_shrink(data: st.DataObject) -> None:
    """Every position holds a number of its own, so a row that took over too little or too much is seen."""
    count = data.draw(st.integers(1, 3))
    cache, rows, number = KVCache(CONFIG, count, 12), [[] for _ in range(count)], 0
    for _ in range(data.draw(st.integers(1, 12))):
        room = 12 - max(map(len, rows), default=0)
        kind = data.draw(st.sampled_from(["feed", "feed", "reorder", "reorder", "rewind"]))
        if kind == "feed" and room and rows:
            T = data.draw(st.integers(1, min(3, room)))
            new = np.arange(number, number + len(rows) * T, dtype=np.float32).reshape(len(rows), T, 1, 1)
            new, number = np.broadcast_to(new, (len(rows), T, 2, 2)), number + len(rows) * T
            for layer in range(CONFIG.n_layer):
                cache.extend(layer, new * (layer + 1), -new * (layer + 1))
            cache.advance(T)
            rows = [row + new[b, :, 0, 0].astype(int).tolist() for b, row in enumerate(rows)]
        elif kind == "reorder" and rows:
            order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5))
            cache.reorder(order)
            rows = [rows[old] for old in order]
        elif kind == "rewind" and rows:
            counts = [data.draw(st.integers(0, len(row))) for row in rows]
            cache.rewind(counts)
            rows = [row[: len(row) - less] for row, less in zip(rows, counts, strict=True)]
        check(cache, rows)
