"""A circuit: some edges of the residual stream, and the model run with only these edges.

Along an edge of the circuit a receiver reads what this run's sender wrote; along any other edge it reads what the
sender wrote in the corrupted run (or on average, or nothing): Wang et al. 2022, "Interpretability in the Wild"; Conmy
et al. 2023, "Towards Automated Circuit Discovery"; Hanna et al. 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...model.taps import no_tap
from ...session.model import Model
from ...system.files import write_whole
from . import graph
from .circuit_run import Only, written
from .pairs import Pairs, Prompts, ids_of, is_several, of_rows, pairs_of, values
from .tables import circuit_picture

Array = np.ndarray
ABLATIONS = ("corrupted", "mean", "zero")
TOKENS_PER_RUN = 512  # tokens in one run


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """Some `edges` of a model, (senders, receivers) True or False, with the pairs and the metric they were found by.

    ``len(circuit)`` is their number. `whole` is the metric of the clean and of the corrupted runs, (n,) each.
    """

    edges: Array
    scores: Array
    model: Model = field(repr=False)
    pairs: Pairs = field(repr=False)
    metric: Any = field(repr=False)
    whole: tuple[Array, Array] = field(repr=False)

    def __len__(self) -> int:
        return int(self.edges.sum())

    def __repr__(self) -> str:
        return f"Circuit({len(self)} of {int(graph.there(self.model.config).sum()):,} edges, {len(self.nodes)} senders)"

    def _repr_html_(self) -> str:
        return circuit_picture(self)

    @property
    def names(self) -> list[str]:
        """Return the edges by name: ``input->a0.h1<q>``, ``m11->logits``."""
        return graph.names_of(self.edges, self.model.config)

    @property
    def nodes(self) -> list[str]:
        """Return the senders that belong to it."""
        names = graph.senders(self.model.config)
        return [name for name, one in zip(names, graph.alive(self.edges), strict=True) if one]

    def run(
        self,
        ids: Prompts | None = None,
        corrupted: Prompts | None = None,
        *,
        ablation: str = "corrupted",
        prepend_bos: bool = False,
    ) -> Array:
        """The logits of the model with only the circuit: (T, V) for one prompt, (B, T, V) for several of one length.

        `ids` are a prompt, or several (the clean ones that the circuit was found by, if None). What the circuit leaves
        out comes from `corrupted` (if None, from the corrupted prompts that it was found by, which must then be as
        long): position by position; with `ablation` "mean" the mean over their positions and prompts; with "zero" it
        is 0. ``ValueError`` for prompts that don't fit each other, and for a model with edits.
        """
        pairs = self._pairs(ids, corrupted, ablation, prepend_bos)
        one = self.pairs.one if ids is None else not is_several(ids)
        lengths = sorted({len(row) for row in pairs.clean})
        if len(lengths) > 1:
            raise ValueError(f"prompts that run together must have equally many tokens, got {lengths}")
        logits = self._run(np.stack(pairs.clean), pairs.corrupted, ablation)
        return logits[0] if one else logits

    def value(self, ablation: str = "corrupted") -> Array:
        """Return the metric of the circuit's run of each pair that it was found by: (n,)."""
        found = np.zeros(len(self.pairs))
        for rows, clean, corrupted in self.pairs.batches(TOKENS_PER_RUN):
            logits = self._run(clean, corrupted, ablation)
            found[rows] = values(of_rows(self.metric, rows, len(self.pairs)), logits, clean)
        return found

    def faithfulness(self, ablation: str = "corrupted") -> float:
        """(m(circuit) − m(nothing)) / (m(model) − m(nothing)), m being the metric's mean over the pairs.

        1 is as good as the whole model, 0 as good as no edge at all. NaN where the model does no better than nothing.
        Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", section 3.
        """
        found, clean = self.value(ablation).mean(), self.whole[0].mean()
        nothing = self.whole[1].mean()
        if ablation != "corrupted":
            nothing = self.with_edges(np.zeros_like(self.edges)).value(ablation).mean()
        return float("nan") if clean == nothing else float((found - nothing) / (clean - nothing))

    def with_edges(self, edges: Array) -> Circuit:
        """Return the circuit of other edges of the same model, pairs and metric: (senders, receivers)."""
        edges = np.asarray(edges, bool)
        if edges.shape != self.edges.shape or (edges & ~graph.there(self.model.config)).any():
            raise ValueError(f"edges must be {self.edges.shape} and lead from a sender to a later receiver")
        return Circuit(edges, self.scores, self.model, self.pairs, self.metric, self.whole)

    def to_json(self, path: Path | str | None = None) -> str:
        """The circuit as JSON, in the format of the reference implementation of EAP-IG; also into a file `path`."""
        text = graph.to_json(self.edges, self.scores, self.model.config)
        if path is not None:
            write_whole(Path(path), text.encode())
        return text

    def from_json(self, text: str) -> Circuit:
        """The circuit that such a JSON says, of this model, with these pairs and metric. ``ValueError`` if it can't."""
        edges, scores = graph.from_json(text, self.model.config)
        return Circuit(edges, scores, self.model, self.pairs, self.metric, self.whole)

    def _pairs(self, ids: Prompts | None, corrupted: Prompts | None, ablation: str, bos: bool) -> Pairs:
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}, got {ablation!r}")
        if ids is None:
            return self.pairs if corrupted is None else pairs_of(self.model, self.pairs.clean, corrupted)
        if corrupted is not None:
            return pairs_of(self.model, ids, corrupted, prepend_bos=bos)
        each = list(ids) if is_several(ids) else [ids]
        clean = [ids_of(self.model, prompt, prepend_bos=bos) for prompt in each]
        if ablation != "corrupted":
            return Pairs(clean, self.pairs.corrupted, False)
        given = self.pairs.corrupted if len(self.pairs) == len(clean) else self.pairs.corrupted[:1] * len(clean)
        for row, other in zip(clean, given, strict=True):
            if len(row) != len(other):
                raise ValueError(
                    f"a circuit runs a prompt beside a corrupted one of equal length, got {len(row)} tokens and "
                    f"{len(other)}: give corrupted as well, or ablation='mean' or 'zero'"
                )
        return Pairs(clean, given, False)

    def _run(self, ids: Array, corrupted: Sequence[Array] | Array, ablation: str) -> Array:
        """Return the logits of the (b, T) ids, given their (b, T) corrupted ones."""
        if self.model.tap is not no_tap:
            raise ValueError("a circuit is run on a model without edits, and this one has some")
        other = written(self.model, self.pairs.corrupted if ablation == "mean" else corrupted, ablation)
        tap = Only(self.edges, self.model.params, self.model.config, other)
        logits = self.model.forward(ids, tap=tap)
        self.model.check_logits(logits, ids, tap=tap)
        return logits
