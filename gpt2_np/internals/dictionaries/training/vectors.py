"""A capture on disk as batches of vectors, shuffled: each batch is a function of the seed and the step alone.

The chunks of a capture are taken in groups that fit into memory, in an order of its own in each epoch; the vectors of a
group are shuffled. So a run can stop and go on anywhere, and a capture may be larger than memory.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from pathlib import Path

import numpy as np

from ....display import Readable
from ....model.taps import canonical
from ....weights.header import safely_opened
from ...capture import Captured

Array = np.ndarray


class Vectors(Readable):
    """The vectors of a capture: `reads` are what a dictionary reads, `writes` what it is to predict.

    ``width`` and ``width_out`` are theirs. The first `skip` positions of each text are left out. ``ValueError`` for an
    activation that wasn't captured, and for a capture without vectors.
    """

    def __init__(self, captured: Captured, reads: str, writes: str, *, skip: int, seed: int, group_bytes: int) -> None:
        self.captured, self.skip, self.seed = captured, skip, seed
        self.reads, self.writes = canonical(reads), canonical(writes)
        for name in (self.reads, self.writes):
            if name not in captured.names:
                raise ValueError(f"{name} is not in this capture; it holds {', '.join(captured.names)}")
        widths: set[tuple[int, int]] = set()
        self.counts = [self._count(path, widths) for path in captured.chunks]
        if len(widths) != 1:
            raise ValueError(f"{captured.folder} must hold vectors of one width, got {sorted(widths) or 'none'}")
        self.width, self.width_out = widths.pop()
        most = max(1, group_bytes // (4 * (self.width + (self.width_out if self.writes != self.reads else 0))))
        self.group_vectors = most
        self.held: tuple[tuple[int, int], tuple[Array, Array, Array]] | None = None

    def _count(self, path: Path, widths: set[tuple[int, int]]) -> int:
        """Return how many vectors a chunk has, and add their widths to `widths`: from its header alone."""
        count = 0
        with safely_opened(path) as file:
            for text in _texts(file):
                (T,) = file.get_slice(f"{text}.ids").get_shape()
                shapes = [file.get_slice(f"{text}.{name}").get_shape() for name in (self.reads, self.writes)]
                for name, shape in zip((self.reads, self.writes), shapes, strict=True):
                    if len(shape) < 2 or shape[0] != T or 0 in shape[1:]:
                        raise ValueError(
                            f"{path}: {text}.{name} must have a vector for each of {T} tokens, got {shape}"
                        )
                if self.skip < T:
                    count += T - self.skip
                    widths.add((math.prod(shapes[0][1:]), math.prod(shapes[1][1:])))
        return count

    def __len__(self) -> int:
        return sum(self.counts)

    def groups(self, epoch: int) -> list[list[int]]:
        """Return the chunks of each group of an epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.counts))
        groups: list[list[int]] = []
        size = 0
        for chunk in order.tolist():
            if not self.counts[chunk]:
                continue
            if not groups or size + self.counts[chunk] > self.group_vectors:
                groups.append([])
                size = 0
            groups[-1].append(chunk)
            size += self.counts[chunk]
        return groups

    def batch(self, step: int, size: int) -> tuple[Array, Array]:
        """The (size, width) and (size, width_out) vectors of a step that counts from 0.

        What a group has left over is left out in that epoch. ``ValueError`` for a batch that no group holds.
        """
        epoch = 0
        while True:
            groups = self.groups(epoch)
            batches = [sum(self.counts[chunk] for chunk in group) // size for group in groups]
            total = sum(batches)
            if not total:
                raise ValueError(f"batch_size must be at most {max(self.counts)}, the vectors at hand, got {size}")
            if step < total:
                break
            step, epoch = step - total, epoch + 1
        ends = list(accumulate(batches))
        number = next(at for at, end in enumerate(ends) if step < end)
        within = step - (ends[number] - batches[number])
        x, y, order = self._group(epoch, number, groups[number])
        chosen = order[within * size :][:size]
        some = x[chosen]
        return some, some if y is x else y[chosen]

    def _group(self, epoch: int, number: int, chunks: list[int]) -> tuple[Array, Array, Array]:
        """The vectors of a group and the order in which they are drawn, kept until another one is asked for."""
        if self.held is None or self.held[0] != (epoch, number):
            self.held = None
            parts: list[tuple[Array, Array]] = []
            for chunk in sorted(chunks):
                with safely_opened(self.captured.chunks[chunk]) as file:
                    for text in _texts(file):
                        of_text = [file.get_tensor(f"{text}.{name}")[self.skip :] for name in (self.reads, self.writes)]
                        parts.append((_rows(of_text[0]), _rows(of_text[1])))
            x = np.concatenate([part[0] for part in parts])
            y = x if self.reads == self.writes else np.concatenate([part[1] for part in parts])
            order = np.random.default_rng([self.seed, epoch, number]).permutation(len(x))
            self.held = (epoch, number), (x, y, order)
        return self.held[1]

    def first(self) -> tuple[Array, Array]:
        """Return the vectors of the first group, from which means and lengths are estimated."""
        return self._group(0, 0, self.groups(0)[0])[:2]

    def fingerprint(self) -> str:
        """Return a description that distinguishes captures: its contents and its sizes."""
        return json.dumps([self.captured.about, self.counts, self.reads, self.writes], sort_keys=True)


def _texts(file: object) -> list[int]:
    keys = file.keys()  # type: ignore[attr-defined]
    return sorted(int(key.removesuffix(".ids")) for key in keys if key.endswith(".ids"))


def _rows(x: Array) -> Array:
    return x.reshape(len(x), -1).astype(np.float32, copy=False)
