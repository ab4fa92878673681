"""What Prometheus is told of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from aya_jax.inference.engine import EngineStats

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self, stats: Callable[[], EngineStats]):
        """`stats`: what the engine is doing, read at each scrape."""
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(stats))
        make = {"registry": self.registry}
        self.requests = Counter("aya_requests", "Requests, by route and status.", ("route", "status"), **make)
        self.prompt_tokens = Counter("aya_prompt_tokens", "Tokens of prompts.", **make)
        self.generated_tokens = Counter("aya_generated_tokens", "Tokens sampled.", **make)
        self.cancelled = Counter("aya_cancelled", "Requests cut off, by reason.", ("reason",), **make)
        self.first_token = Histogram(
            "aya_time_to_first_token_seconds", "From a request's arrival to its first token.", buckets=_SECONDS, **make
        )
        self.per_token = Histogram(
            "aya_time_per_output_token_seconds", "Between a sample's tokens, on average.", buckets=_SECONDS, **make
        )
        self.duration = Histogram(
            "aya_request_seconds",
            "From a request's arrival to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            **make,
        )

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """What holds at the moment of a scrape."""

    def __init__(self, stats: Callable[[], EngineStats]):
        self._stats = stats

    def collect(self) -> Iterator[Any]:
        stats = self._stats()
        yield GaugeMetricFamily("aya_running_samples", "Samples in slots of the engine.", stats.running)
        yield GaugeMetricFamily("aya_waiting_samples", "Samples that wait for a slot.", stats.waiting)
        yield GaugeMetricFamily(
            "aya_reused_prompt_tokens", "Tokens of prompts that a slot held already.", stats.reused_tokens
        )
