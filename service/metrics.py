"""Prometheus metrics. The only module that imports prometheus_client; everything else tells an observer.

What every request adds to is plain integers and lists, counted on the event loop without a lock, and becomes metric
families when somebody scrapes: prometheus_client's own counters take a lock and a label lookup a figure, and an answer
adds some forty figures (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from ranking.batching import Figures
from service.answer_figures import AnswerFigures, ShadowFigures
from service.figures import FINE, SECONDS, Counts, Histogram, Tally
from service.trace import CHOSEN, Trace
from service.wire import Accepted, Recommendation
from service.workers_metrics import CURVE, Family, merged


class EventCounts(Protocol):
    """What became of events, as their consumer counts it."""

    consumed: int

    @property
    def unusable(self) -> int: ...


class LogCounts(Protocol):
    """What became of answers in the serving log, or of requests in recorded traffic."""

    written: int
    failed: int

    @property
    def dropped(self) -> int: ...


class Gate(Protocol):
    """What became of requests at the gate."""

    in_flight: int
    refused: dict[str, int]

    @property
    def limit(self) -> Sized: ...


class Sized(Protocol):
    @property
    def size(self) -> float: ...


class Loaded(Protocol):
    """Which versions of which models may answer, and which were refused; each as model and version."""

    swaps: int

    @property
    def refused(self) -> Mapping[tuple[str, str], object]: ...

    def loaded(self) -> Sequence[tuple[str, str]]: ...


class Metrics:
    """One registry a process, so that two services in one test do not share figures. Told on the event loop only.

    `engine` has the seconds of that stage more closely than a scrape tells them. `whole` are figures that are of all
    workers already.
    """

    def __init__(self) -> None:
        self.requests = Counts("endcap_requests", "Requests by outcome.", ["endpoint", *CHOSEN, "status"])
        self.seconds = Histogram(
            "endcap_request_seconds",
            "Time from the request's head to its answer, failures included.",
            ["endpoint", *CHOSEN],
            SECONDS,
        )
        self.answers = AnswerFigures()
        self.arm_missing = Counts(
            "endcap_arm_missing", "Requests whose arm names a version that is not loaded.", ["placement", "arm"]
        )
        self.shadow = ShadowFigures()
        self.engine = Tally(FINE)
        self.job_rows = Counts("endcap_job_rows", "Rows of jobs, by outcome.", ["outcome"])
        self.webhooks = Counts("endcap_webhooks", "Attempts to deliver a webhook, by outcome.", ["outcome"])
        self.events = Counts("endcap_events", "Events sent to us, by outcome.", ["outcome"])
        self.formats = Counts(
            "endcap_formats", "Requests by formats, but for JSON on both sides.", ["endpoint", "body", "answer"]
        )
        self.batch_users = Counts("endcap_batch_users", "Users of batches by outcome.", ["endpoint", "status"])
        self.waiting: Callable[[], int] = int
        self.gate: Gate | None = None
        self.learned: Callable[[], Figures | None] = lambda: None
        self.consumer: EventCounts | None = None
        self.versions: Loaded | None = None
        self.project = ""
        self.feature_ages: Callable[[], dict[str, float]] = dict
        self.log: LogCounts | None = None
        self.capture: LogCounts | None = None
        self.others: Callable[[], list[list[Family]]] = list
        self.whole: Callable[[], list[Family]] = list
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(self)

    def answered(self, endpoint: str, status: int, trace: Trace) -> None:
        self.requests.values[endpoint, *trace.chosen, str(status)] += 1
        self.seconds.tallies[endpoint, *trace.chosen].add(trace.elapsed())

    def recommended(self, answer: Recommendation, trace: Trace) -> None:
        self.answers.add(answer, trace)
        if (engine_s := trace.stages.get("engine")) is not None:  # popular items are made without it
            self.engine.add(engine_s)

    def formatted(self, endpoint: str, body: str, answer: str) -> None:
        """`body` and `answer` are media types."""
        self.formats.values[endpoint, body, answer] += 1

    def of_batch(self, endpoint: str, status: int) -> None:
        self.batch_users.values[endpoint, str(status)] += 1

    def events_taken(self, taken: Accepted) -> None:
        for outcome, count in (
            ("accepted", taken.accepted),
            ("duplicate", taken.duplicates),
            ("rejected", taken.rejected_count),
        ):
            self.events.values[outcome,] += count

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        families = [*self.answers.families(), *self.shadow.families()]
        for one in (self.requests, self.seconds, *families, self.arm_missing, self.job_rows, self.webhooks):
            yield family_of(one)
        yield GaugeMetricFamily("endcap_engine_waiting", "Queries waiting for the engine.", self.waiting())
        if self.gate is not None:
            yield GaugeMetricFamily("endcap_in_flight", "Requests that are being answered.", self.gate.in_flight)
            yield GaugeMetricFamily("endcap_in_flight_limit", "How many may be.", self.gate.limit.size)
            refused = CounterMetricFamily("endcap_refused", "Requests refused at the gate.", labels=["priority"])
            for priority, count in self.gate.refused.items():
                refused.add_metric([priority], count)
            yield refused
        yield from curve(self.learned())
        yield from versions(self.versions)
        yield family_of(self.events)
        yield family_of(self.formats)
        yield family_of(self.batch_users)
        newest = GaugeMetricFamily(
            "feast_feature_freshness_seconds",
            "Seconds since a view's newest event.",
            labels=["feature_view", "project"],
        )
        for view, seconds in self.feature_ages().items():
            newest.add_metric([view, self.project], seconds)
        yield newest
        if self.consumer is not None:
            family = CounterMetricFamily("endcap_events_consumed", "Events taken off the stream.", labels=["outcome"])
            family.add_metric(["in_features"], self.consumer.consumed)
            family.add_metric(["unusable"], self.consumer.unusable)
            yield family
        for name, text, counts in (
            ("endcap_log_answers", "Answers by their fate in the log.", self.log),
            ("endcap_capture_requests", "Requests by their fate in recorded traffic.", self.capture),
        ):
            if counts is not None:
                family = CounterMetricFamily(name, text, labels=["outcome"])
                for outcome in ("written", "dropped", "failed"):
                    family.add_metric([outcome], getattr(counts, outcome))
                yield family

    def snapshot(self) -> list[Family]:
        """All of it as plain data."""
        return [
            Family(one.name, one.documentation, one.type,
                   [(sample.name, tuple(sample.labels.items()), sample.value) for sample in one.samples])
            for one in self.registry.collect()
        ]  # fmt: skip

    def counted(self) -> list[Family]:
        """All of it together with the figures of the others that answer on the same port."""
        return [*merged([self.snapshot(), *self.others()]), *self.whole()]

    def text(self) -> tuple[bytes, str]:
        """This process's figures, and with them those of the others that answer on the same port."""
        whole = CollectorRegistry()
        whole.register(Given(self.counted()))
        return generate_latest(whole), CONTENT_TYPE_LATEST


def family_of(figures: Counts | Histogram) -> Metric:
    """As prometheus_client has it."""
    if isinstance(figures, Counts):
        counter = CounterMetricFamily(figures.name, figures.text, labels=figures.labels)
        for labels, value in figures.values.items():
            counter.add_metric(labels, value)
        return counter
    histogram = HistogramMetricFamily(figures.name, figures.text, labels=figures.labels)
    for labels, tally in figures.tallies.items():
        histogram.add_metric(labels, tally.cumulative(), tally.sum)
    return histogram


def curve(found: Figures | None) -> Iterator[Metric]:
    """What the engine has learned of batches; families without a sample until it has."""
    seconds = GaugeMetricFamily(f"{CURVE}seconds", "A batch of so many typical queries, as fitted.", labels=["size"])
    size = GaugeMetricFamily(f"{CURVE}size", "The batch worth having, the fastest one, and the knee.", labels=["kind"])
    parts = GaugeMetricFamily(f"{CURVE}part_seconds", "What the seconds are made of.", labels=["part"])
    if found is not None:
        for queries, took in zip(found.sizes, found.seconds, strict=True):
            seconds.add_metric([str(queries)], took)
        knee = float("inf") if found.knee is None else found.knee
        for kind, value in (("worth_having", found.size), ("fastest", found.fastest), ("knee", knee)):
            size.add_metric([kind], value)
        for part, value in (("fixed", found.fixed_s), ("query", found.query_s), ("row", found.row_s)):
            parts.add_metric([part], value)
    yield from (seconds, size, parts)


def versions(found: Loaded | None) -> Iterator[Metric]:
    """Which versions there are in this process; families without a sample until they are known."""
    for name, text, which in (
        ("endcap_model_loaded", "Versions that may answer.", found.loaded() if found else ()),
        ("endcap_model_refused", "Versions that were to be loaded and are not.", list(found.refused) if found else ()),
    ):
        family = GaugeMetricFamily(name, text, labels=["model", "version"])
        for labels in which:
            family.add_metric(labels, 1)
        yield family
    swaps = CounterMetricFamily("endcap_model_swaps", "Changes of the version that a placement's model stands for.")
    swaps.add_metric([], found.swaps if found else 0)
    yield swaps


class Given:
    """A collector of families that are there already."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        for family in self.families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
