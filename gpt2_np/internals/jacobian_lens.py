"""The Jacobian lens: what a stream is disposed to make the model say, by the mean of how the last stream depends on it.

Gurnee, Sofroniew, Lindsey et al. 2026, "Verbalizable Representations Form a Global Workspace in Language Models". A
stream after layer l is multiplied by J_l, the mean over texts and positions of ∂ last stream / ∂ that stream, and then
read by the model's own final norm and unembedding; with J_l = 1 it would be the logit lens. J_l is the authors'
estimator (github.com/anthropics/jacobian-lens, ``jlens.fitting``): of one text, the sum over the positions at which a
change arrives, averaged over those at which it is made, each text counting once; the first 16 positions and the last
one are left out. Layers are counted by the stream that leaves them, ``blocks.l.resid_post``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..display import described
from ..gradients.jacobians import names_read, summed_jacobians
from ..gradients.run import check_weights
from ..model import ops
from ..model.activations import ActivationCache
from ..model.taps import no_tap
from ..session.model import Model
from ..system.files import write_whole
from ..weights import header
from ..weights.load import floats
from .lens import Lens as Looked

Array = np.ndarray
Text = str | Sequence[int] | Array

SKIPPED, LENGTH = 16, 128  # the authors' own: positions at the start that don't count, tokens of a text that do
STREAMS = "blocks.*.resid_post"  # what `Lens.read` needs of a run
FORMAT = "gpt2_np jacobian lens 1"
COUNTS = ("texts", "offered", "skip_first", "length")


@dataclass(frozen=True, eq=False, repr=False)
class Lens:
    """A fitted lens: ``total`` is the sum of the texts' Jacobians, (L − 1, D, D) float64, rows the last stream's.

    ``texts`` were summed, of the ``offered`` (the others were too short). ``skip_first`` and ``length`` are what `fit`
    was given; ``digest`` says which ids were offered, so that a fit goes on with the same ones only, and is empty once
    lenses were merged.
    """

    total: Array
    texts: int
    offered: int
    skip_first: int
    length: int
    digest: str = ""

    def __repr__(self) -> str:
        return described(self)

    @property
    def jacobian(self) -> Array:
        """J_l of every layer but the last, whose own is 1: (L − 1, D, D), float64."""
        return self.total / self.texts

    def transport(self, streams: Array, layer: int) -> Array:
        """Streams after a layer as the last layer's: J_l·h for each, (…, D) → (…, D), in their own dtype."""
        L = len(self.total) + 1
        if not -L <= layer < L:
            raise ValueError(f"layer must be between {-L} and {L - 1}, got {layer}")
        if layer % L == L - 1:
            return streams
        return streams @ (self.total[layer % L] / self.texts).T.astype(streams.dtype)

    def read_layer(self, cache: ActivationCache, layer: int) -> Array:
        """The logits of the stream after one layer, (T, V). See `read`."""
        self.check(cache.config.n_layer, cache.config.n_embd)
        stream = cache["resid_post", layer]
        if len(stream) != 1:
            raise ValueError(f"a lens looks at one prompt, got {len(stream)} rows")
        moved, epsilon = self.transport(stream[0], layer), cache.config.layer_norm_epsilon
        return ops.unembed(ops.layer_norm(moved, *cache.params.ln_f, epsilon), cache.params.lm_head)

    def read(self, cache: ActivationCache) -> Array:
        """Return each layer's reading as logits (L, T, V); the last are the model's own.

        The cache is that of a run of one prompt with the names in `STREAMS`.
        """
        return np.stack([self.read_layer(cache, layer) for layer in range(cache.config.n_layer)])

    def __call__(self, model: Model, ids: Sequence[int] | Array) -> Looked:
        """The same of one prompt, (T,), with names and tables (`lens.Lens`): streams "1_pre" … "final_post"."""
        row = model.check_ids(ids)
        _, cache = model.run_with_cache(row, STREAMS)
        labels = [f"{layer}_pre" for layer in range(1, model.config.n_layer)]
        return Looked(row[0], [*labels, "final_post"], self.read(cache), model.texts)

    def direction(self, model: Model, token: int, layer: int) -> Array:
        """A token's own direction in the stream after a layer: its row of W_U · J_l, (D,), in the model's dtype."""
        self.check(model.config.n_layer, model.config.n_embd)
        row = ActivationCache({}, model.params, model.config).directions(token)
        L = model.config.n_layer
        if not -L <= layer < L:
            raise ValueError(f"layer must be between {-L} and {L - 1}, got {layer}")
        return row if layer % L == L - 1 else (row @ (self.total[layer % L] / self.texts)).astype(model.dtype)

    def check(self, n_layer: int, width: int) -> None:
        """``ValueError`` where a model is not of the shape that the lens was fitted for."""
        L, D = len(self.total) + 1, self.total.shape[1]
        if (n_layer, width) != (L, D):
            raise ValueError(f"this lens was fitted for {L} layers of width {D}, got a model with {n_layer} of {width}")

    def save(self, path: Path | str) -> None:
        """Write a safetensors file; a broken write leaves nothing behind."""
        about = {name: str(getattr(self, name)) for name in (*COUNTS, "digest")}
        from safetensors.numpy import save as to_bytes

        write_whole(Path(path), to_bytes({"total": self.total}, {"format": FORMAT} | about))


def fit(
    model: Model,
    texts: Iterable[Text],
    *,
    skip_first: int = SKIPPED,
    length: int | None = None,
    after: Lens | None = None,
    every: int = 10,
    part: Callable[[Lens], Any] | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Lens:
    """Fit a lens on texts, each text or ids (text is encoded as it stands; nothing is put before it).

    Of each the first `length` tokens count (128, or the context where it is shorter), and of these neither the first
    `skip_first` positions nor the last one; a text without any other is passed over. With `after`, what a fit of the
    same texts gave so far, it goes on after them, to the same bits as if it had never stopped. `part` receives the
    lens so far after `every` texts, `progress` 1 for each. Lenses of different texts are put together by `merge`.

    The cost of a text is D backward passes, about 18·N·D³ + 6·N²·D² operations a layer for N positions that count: half
    that of passes one by one. ``ValueError``, before a text is read, for options that can't be, for a model with edits,
    and for an `after` of another fit; and for texts of which none was long enough.

    Examples:
        >>> from gpt2_np import GPT2
        >>> model = GPT2.from_pretrained()
        >>> from gpt2_np.internals import jacobian_lens
        >>> lens = jacobian_lens.fit(model, ["Once upon a time there was a king"], skip_first=0, length=8)
        >>> lens.read(model.run_with_cache("The king and the")[1]).shape
        (8, 4, 4096)
    """
    L, D, context = model.config.n_layer, model.config.n_embd, model.config.n_positions
    length = min(LENGTH, context) if length is None else length
    if skip_first < 0:
        raise ValueError(f"skip_first must be at least 0, got {skip_first}")
    if not skip_first + 2 <= length <= context:
        raise ValueError(f"length must be between {skip_first + 2} and {context}, the model's context, got {length}")
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if L < 2:
        raise ValueError("a Jacobian lens needs a model of at least 2 layers: its last layer is the output itself")
    check_weights(model, False)
    if model.tap is not no_tap:
        raise ValueError("a Jacobian lens is fitted on a model without edits")
    if after is not None:
        after.check(L, D)
        if (after.skip_first, after.length) != (skip_first, length) or not after.digest:
            raise ValueError(
                f"a fit goes on with its own skip_first and length, got {skip_first} and {length} after one with "
                f"{after.skip_first} and {after.length}" + ("" if after.digest else ", which was merged")
            )
    found = Lens(np.zeros((L - 1, D, D)), 0, 0, skip_first, length) if after is None else after
    done, total, hashed, number = found.offered, found.total.copy(), hashlib.sha256(), 0
    for number, text in enumerate(texts, 1):
        ids = _ids(model, text)[:length]
        hashed.update(np.array([len(ids), *ids], "<i8").tobytes())
        if number <= done:
            if number == done and hashed.hexdigest() != found.digest:
                raise ValueError(f"a fit goes on with its own texts, and the first {number} are others")
            continue
        used = len(ids) - 1 > skip_first
        if used:
            _, cache = model.run_with_cache(np.array(ids)[None], names_read(L))
            total += summed_jacobians(cache, slice(skip_first, len(ids) - 1))
        found = replace(found, total=total, texts=found.texts + used, offered=number, digest=hashed.hexdigest())
        if part is not None and number % every == 0 and found.texts:
            part(replace(found, total=total.copy()))
        if progress is not None:
            progress(1)
    if number < done:
        raise ValueError(f"a fit goes on with its own texts, {done} and more of them, got {number}")
    if not found.texts:
        raise ValueError(f"a Jacobian lens needs a text of at least {skip_first + 2} tokens, got none in {number}")
    return found


def _ids(model: Model, text: Text) -> list[int]:
    if not isinstance(text, str):
        return [int(one) for one in (model.check_ids(text[: model.config.n_positions])[0] if len(text) else [])]
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("a text needs a model with a tokenizer; give ids instead")
    return cast("list[int]", tokenizer.encode(text))


def merge(lenses: Sequence[Lens]) -> Lens:
    """One lens from several that were fitted on different texts: the same as fitted on all, each text counting once.

    ``ValueError`` for none, or for lenses of different shapes or options.
    """
    if not lenses:
        raise ValueError("there is nothing to merge: give at least one lens")
    first = lenses[0]
    for lens in lenses:
        for what in ("skip_first", "length"):
            if getattr(lens, what) != getattr(first, what):
                values = f"{getattr(first, what)} and {getattr(lens, what)}"
                raise ValueError(f"lenses to merge must agree in {what}, got {values}")
        if lens.total.shape != first.total.shape:
            raise ValueError(f"lenses to merge must agree in shape, got {first.total.shape} and {lens.total.shape}")
    total = np.sum([lens.total for lens in lenses], axis=0)
    texts, offered = sum(lens.texts for lens in lenses), sum(lens.offered for lens in lenses)
    return Lens(total, texts, offered, first.skip_first, first.length)


def save(lens: Lens, path: Path | str) -> None:
    """As `Lens.save`."""
    lens.save(path)


def _whole(about: dict[str, str], name: str) -> int:
    """A number of the metadata, which is text. ``ValueError`` for anything else, ``KeyError`` for none."""
    text = about[name]
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(f"its {name} must be a whole number, got {text!r:.60}")
    return int(text)


def load(path: Path | str) -> Lens:
    """Read what `save` wrote. ``ValueError`` names a file that is no lens, ``OSError`` one that can't be read."""
    path = Path(path)
    try:
        about = header.read(path).metadata
        total = floats(path)["total"]
        if about.get("format") != FORMAT:
            raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
        texts, offered, skip_first, length = (_whole(about, name) for name in COUNTS)
        lens = Lens(total, texts, offered, skip_first, length, about["digest"])
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).removeprefix(f"{path} ")
        raise ValueError(f"{path} is not a Jacobian lens: {why}") from None
    if total.ndim != 3 or total.shape[1] != total.shape[2] or not total.size or total.dtype != np.float64:
        raise ValueError(f"{path} is not a Jacobian lens: its matrices are {total.dtype} {total.shape}")
    if not 1 <= texts <= offered or skip_first < 0 or length < skip_first + 2 or not np.isfinite(total).all():
        raise ValueError(f"{path} is not a Jacobian lens: its numbers can't be a fit's")
    return lens
