"""Prometheus metrics. The only module that imports prometheus_client; everything else tells an observer."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from service.trace import Trace
from service.wire import Recommendation

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
AGES = (1, 10, 60, 300, 900, 3600, 4 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400, 365 * 86400)


class Metrics:
    """One registry a process, so that two services in one test do not share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.requests = Counter(
            "endcap_requests_total", "Requests by outcome.", ["endpoint", "placement", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "endcap_request_seconds",
            "Time from the request's head to its answer, failures included.",
            ["endpoint", "placement"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "endcap_stage_seconds", "Time in each stage.", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self.degraded = Counter(
            "endcap_degraded_total", "Answers that had to do without something.", ["reason"], registry=self.registry
        )
        self.views = Counter(
            "endcap_feature_views_total", "Feature views read, by status.", ["view", "status"], registry=self.registry
        )
        self.age = Histogram(
            "endcap_feature_age_seconds",
            "Age of a feature view's row when it was served.",
            ["view"],
            buckets=AGES,
            registry=self.registry,
        )
        self.items = Counter("endcap_items_total", "Items answered, by source.", ["source"], registry=self.registry)
        self.answers = Counter(
            "endcap_answers_total", "Answers by model version.", ["model", "version"], registry=self.registry
        )
        self.batch = Histogram(
            "endcap_engine_batch_size",
            "Queries in a micro-batch, counted once a query.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.waiting = Gauge("endcap_engine_waiting", "Queries waiting for the engine.", registry=self.registry)

    def answered(self, endpoint: str, placement: str, status: int, seconds: float) -> None:
        self.requests.labels(endpoint, placement, str(status)).inc()
        self.seconds.labels(endpoint, placement).observe(seconds)

    def recommended(self, answer: Recommendation, trace: Trace) -> None:
        for stage, seconds in trace.stages.items():
            self.stage_seconds.labels(stage).observe(seconds)
        self.batch.observe(trace.batch_size)
        for reason in answer.degraded:
            self.degraded.labels(reason).inc()
        for view, found in answer.features.items():
            self.views.labels(view, found.status).inc()
            if found.age_s is not None:
                self.age.labels(view).observe(found.age_s)
        for item in answer.items:
            self.items.labels(item.source).inc()
        self.answers.labels(answer.model.name, answer.model.version).inc()

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
