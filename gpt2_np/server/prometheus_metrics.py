"""The counters of a server's work for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .observing import Observer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics(Observer):
    """Counts in a registry of its own, so that several servers can be in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        more = {"namespace": "gpt2_np", "registry": self.registry}
        self.jobs = Counter("jobs", "Prompts that were taken on.", **more)
        self.ends = Counter("jobs_ended", "Prompts that came to their end, by how.", ["reason"], **more)
        self.prompt = Counter("prompt_tokens", "Tokens of prompts that were read.", **more)
        self.written = Counter("completion_tokens", "Tokens that were written.", **more)
        self.to_first = Histogram(
            "time_to_first_token_seconds", "From a request to its first token.", buckets=SECONDS, **more
        )
        self.step = Histogram(
            "time_between_tokens_seconds", "From one token of a text to its next.", buckets=SECONDS, **more
        )
        self.waiting = Gauge("jobs_waiting", "Prompts that wait for room.", **more)
        self.rows = Gauge("texts_in_progress", "Texts that are being written in the batch.", **more)
        self.tokens = Gauge("tokens_in_progress", "Tokens that these may come to.", **more)

    def submitted(self) -> None:
        """See `Observer`."""
        self.jobs.inc()

    def first(self, seconds: float) -> None:
        """See `Observer`."""
        self.to_first.observe(seconds)

    def between(self, seconds: float) -> None:
        """See `Observer`."""
        self.step.observe(seconds)

    def read(self, positions: int) -> None:
        """See `Observer`."""
        self.prompt.inc(positions)

    def wrote(self, tokens: int) -> None:
        """See `Observer`."""
        self.written.inc(tokens)

    def ended(self, reason: str) -> None:
        """See `Observer`."""
        self.ends.labels(reason).inc()

    def standing(self, waiting: int, rows: int, tokens: int) -> None:
        """See `Observer`."""
        self.waiting.set(waiting)
        self.rows.set(rows)
        self.tokens.set(tokens)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
