"""A dictionary: sparse autoencoders and transcoders, as they are loaded, saved and used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...model.edits import Edit, Positions
from . import splicing
from .coding import Coder


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary(Coder):
    """Features and their directions in SAELens's format: `Coder`, and `splice`."""

    def splice(
        self,
        *,
        error: bool = False,
        positions: Positions = None,
        ablate: Iterable[int] = (),
        scale: Mapping[int, float] | None = None,
        add: Mapping[int, float] | None = None,
        value: Mapping[int, float] | None = None,
    ) -> Edit:
        """The edit that puts an autoencoder into a model: ``model.with_edits({sae.hook_name: sae.splice()})``.

        See `splicing.splice`.
        """
        return splicing.splice(self, error=error, positions=positions, ablate=ablate, scale=scale, add=add, value=value)
