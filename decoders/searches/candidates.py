"""Candidates for assisted decoding: from the text itself (prompt look-up), or from a draft model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..base.errors import require
from ..base.interface import FORBIDDEN, Array, RewindableStepper, softmax
from ..base.readable import Readable
from ..base.task import Prompt, Task
from ..processors import pipeline
from ..random.draws import multinomial


class Candidates(Protocol):
    """Proposes continuations of a text."""

    passes: int  # how often a model was run for it

    def propose(self, text: Sequence[int], most: int) -> tuple[list[int], list[Array]]:
        """Return at most `most` ids and, if they were drawn, the (V,) probabilities that each was drawn from."""
        ...

    def learn(self, proposed: int, accepted: int) -> None:
        """Report how many of the newest candidates were accepted."""
        ...


class PromptLookup(Readable):
    """Drafts what followed the same n-gram before: Saxena 2023, as transformers' ``PromptLookupCandidateGenerator``.

    The longest n-gram that ends the text, of at most ``max_matching_ngram_size`` ids, and its first occurrence whose
    continuation no processor forbids; candidates end before an end-of-text.
    """

    passes = 0

    def __init__(self, task: Task, prompt: Prompt, tokens: int, ngram: int, V: int) -> None:
        self.tokens, self.ngram = tokens, ngram
        self.eos, self.V = task.eos, V
        self.found = 0  # how many candidates there were, had there been room for all
        # What may forbid a token whatever the model says, so that looking it up would be in vain.
        self.rules = [named.processor for named in prompt.chain(()) if named.forbids]

    def propose(self, text: Sequence[int], most: int) -> tuple[list[int], list[Array]]:
        self.found = 0
        if most < 1:
            return [], []
        ids = np.array(text)
        for n in range(min(self.ngram, len(ids) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(ids, n)[:-1]
            for start in (np.flatnonzero((windows == ids[-n:]).all(axis=-1)) + n).tolist():
                found = self.allowed(ids, ids[start : start + self.tokens].tolist())
                if found:
                    end = next((place for place, token in enumerate(found) if token in self.eos), len(found))
                    self.found = end
                    return found[: min(end, most)], []
        return [], []

    def allowed(self, text: Array, candidates: list[int]) -> list[int]:
        """The candidates before the first that a processor forbids."""
        if not self.rules:
            return candidates
        for place, token in enumerate(candidates):
            so_far = [np.concatenate([text, np.array(candidates[:place], text.dtype)])]
            scores = np.ones((1, self.V), np.float32)
            try:
                for processor in self.rules:
                    scores = processor(so_far, scores)
            except ValueError:  # a text that a user's own rule refuses to know
                return candidates[:place]
            if scores[0, token] <= FORBIDDEN:
                return candidates[:place]
        return candidates

    def learn(self, proposed: int, accepted: int) -> None:
        """Learn nothing: earlier text does not change."""


class Draft(Readable):
    """Drafts what a smaller model of the same vocabulary writes: transformers' ``AssistedCandidateGenerator``.

    It goes through the same processors and, when sampling, draws from the same stream. It stops early after an
    end-of-text, and after a token less probable than ``assistant_confidence_threshold``, which stays as it is (as in
    transformers where scikit-learn isn't installed). A schedule of either heuristic adds 2 to the number of candidates
    where all were accepted, and takes 1 off where not; nothing of it outlives the text. A stepper with a ``capacity``
    proposes nothing for texts beyond it.
    """

    def __init__(
        self,
        task: Task,
        prompt: Prompt,
        V: int,
        stepper: RewindableStepper,
        tokens: int,
        adapts: bool,
        threshold: float,
    ) -> None:
        self.stepper, self.stream, self.V = stepper, task.stream, V
        self.eos, self.passes = task.eos, 0
        self.tokens, self.adapts, self.threshold = tokens, adapts, threshold
        # What has a second stepper or a past of its own is tied to a text that only grows: a draft does without.
        self.chain = [named for named in prompt.chain(()) if not named.has_past]
        self.capacity: float = getattr(stepper, "capacity", np.inf)
        self.held: list[int] = []  # what the stepper was fed

    def propose(self, text: Sequence[int], most: int) -> tuple[list[int], list[Array]]:
        found: list[int] = []
        drawn_from: list[Array] = []
        while len(found) < min(self.tokens, most, self.capacity - len(text) + 1):
            so_far = [*text, *found]
            logits = self.follow(so_far)
            try:
                scores = pipeline.apply(self.chain, [np.array(so_far)], logits)
            except ValueError:  # nothing is left to choose from: the model itself will say so where it comes to it
                break
            if self.stream is None:
                token = int(scores[0].argmax())
                confidence = softmax(scores[0])[token] if self.threshold else 1.0
            else:
                p = softmax(scores)
                token = int(multinomial(self.stream, p, 1, [0], 1)[0, 0])
                confidence = p[0, token]
                drawn_from.append(p[0])
            found.append(token)
            if token in self.eos or confidence < self.threshold:
                break
        return found, drawn_from

    def follow(self, text: list[int]) -> Array:
        """(1, V) logits after a text, only what is new in it being fed."""
        same = min(len(self.held), len(text) - 1)
        if self.held[:same] != text[:same]:
            same = next(place for place, (old, new) in enumerate(zip(self.held, text, strict=False)) if old != new)
        if same < len(self.held):
            self.stepper.rewind([len(self.held) - same])
        logits = self.stepper.feed([text[same:]])
        rule = f"assistant_model must have the model's vocabulary ({self.V})"
        require(logits.shape[-1] == self.V, rule, logits.shape[-1])
        self.held, self.passes = text, self.passes + 1
        return logits

    def learn(self, proposed: int, accepted: int) -> None:
        if self.adapts:
            self.tokens = self.tokens + 2 if accepted == proposed else max(1, self.tokens - 1)
