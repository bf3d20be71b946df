"""Prometheus metrics. The only module that imports prometheus_client; everything else tells an observer.

What every request adds to is plain integers and lists, counted on the event loop without a lock, and becomes metric
families when somebody scrapes: prometheus_client's own counters take a lock and a label lookup a figure, and an answer
adds some forty figures (docs/performance.md).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from ranking.batching import Figures
from service.trace import Trace
from service.wire import Accepted, Recommendation
from service.workers_metrics import CURVE, Family, merged

SECONDS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    1.0,
)
AGES = (1, 10, 60, 300, 900, 3600, 4 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400, 365 * 86400)
FINE = tuple(5e-5 * 2 ** (step / 8) for step in range(129))
"""From 0.05 ms to 3.3 s, eight to a doubling: where a quantile is to be told closer than by SECONDS."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counts:
    """A counter: label values -> how often."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.values: Counter[tuple[str, ...]] = Counter()

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Tally:
    """One histogram's figures: how many fell into each bucket, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus counts them: each holds all the smaller ones."""
        found, total = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.buckets, strict=True):
            total += count
            found.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(total)))
        return found


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float:
    """Of a tally's figures, of which there are some: interpolated inside its bucket; past the last bound that bound."""
    wanted, below, lower = q * sum(counts), 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return lower


class Histogram:
    """A histogram: label values -> tally."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.tallies: defaultdict[tuple[str, ...], Tally] = defaultdict(lambda: Tally(bounds))

    def family(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, tally in self.tallies.items():
            family.add_metric(labels, tally.cumulative(), tally.sum)
        return family


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


class Metrics:
    """One registry a process, so that two services in one test do not share figures. Told on the event loop only.

    `engine` has the seconds of that stage more closely than a scrape tells them. `whole` are figures that are of all
    workers already.
    """

    def __init__(self) -> None:
        self.requests = Counts("endcap_requests", "Requests by outcome.", ["endpoint", "placement", "status"])
        self.seconds = Histogram(
            "endcap_request_seconds",
            "Time from the request's head to its answer, failures included.",
            ["endpoint", "placement"],
            SECONDS,
        )
        self.stage_seconds = Histogram("endcap_stage_seconds", "Time in each stage.", ["stage"], SECONDS)
        self.degraded = Counts("endcap_degraded", "Answers that had to do without something.", ["reason"])
        self.views = Counts("endcap_feature_views", "Feature views read, by status.", ["view", "status"])
        self.age = Histogram(
            "endcap_feature_age_seconds", "Age of a feature view's row when it was served.", ["view"], AGES
        )
        self.items = Counts("endcap_items", "Items answered, by source.", ["source"])
        self.answers = Counts("endcap_answers", "Answers by model version.", ["model", "version"])
        self.batch = Histogram(
            "endcap_engine_batch_size", "Queries in a micro-batch, counted once a query.", [], BATCHES
        )
        self.engine = Tally(FINE)
        self.events = Counts("endcap_events", "Events sent to us, by outcome.", ["outcome"])
        self.waiting: Callable[[], int] = int
        self.gate: Gate | None = None
        self.learned: Callable[[], Figures | None] = lambda: None
        self.consumer: EventCounts | None = None
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

    def answered(self, endpoint: str, placement: str, status: int, seconds: float) -> None:
        self.requests.values[endpoint, placement, str(status)] += 1
        self.seconds.tallies[endpoint, placement].add(seconds)

    def recommended(self, answer: Recommendation, trace: Trace) -> None:
        stages = self.stage_seconds.tallies
        for stage, seconds in trace.stages.items():
            stages[stage,].add(seconds)
        if (engine_s := trace.stages.get("engine")) is not None:  # popular items are made without it
            self.engine.add(engine_s)
        self.batch.tallies[()].add(trace.batch_size)
        for reason in answer.degraded:
            self.degraded.values[reason,] += 1
        for view, found in answer.features.items():
            self.views.values[view, found.status] += 1
            if found.age_s is not None:
                self.age.tallies[view,].add(found.age_s)
        self.items.values.update([(item.source,) for item in answer.items])
        self.answers.values[answer.model.name, answer.model.version] += 1

    def events_taken(self, taken: Accepted) -> None:
        for outcome, count in (
            ("accepted", taken.accepted),
            ("duplicate", taken.duplicates),
            ("rejected", taken.rejected_count),
        ):
            self.events.values[outcome,] += count

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        for one in (self.requests, self.seconds, self.stage_seconds, self.degraded, self.views, self.age, self.items,
                    self.answers, self.batch):  # fmt: skip
            yield one.family()
        yield GaugeMetricFamily("endcap_engine_waiting", "Queries waiting for the engine.", self.waiting())
        if self.gate is not None:
            yield GaugeMetricFamily("endcap_in_flight", "Requests that are being answered.", self.gate.in_flight)
            yield GaugeMetricFamily("endcap_in_flight_limit", "How many may be.", self.gate.limit.size)
            refused = CounterMetricFamily("endcap_refused", "Requests refused at the gate.", labels=["priority"])
            for priority, count in self.gate.refused.items():
                refused.add_metric([priority], count)
            yield refused
        yield from curve(self.learned())
        yield self.events.family()
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

    def text(self) -> tuple[bytes, str]:
        """This process's figures, and with them those of the others that answer on the same port."""
        whole = CollectorRegistry()
        whole.register(Given([*merged([self.snapshot(), *self.others()]), *self.whole()]))
        return generate_latest(whole), CONTENT_TYPE_LATEST


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
