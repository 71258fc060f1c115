"""``GET /metrics``: the server's numbers in Prometheus' text format.

Nothing is kept for it: each answer is made from the supervisor as it is. `prometheus_client` is
imported by the first request.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kallichore.models import Status
from kallichore.tally import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from kallichore.supervisor import Supervisor

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(supervisor: Supervisor) -> bytes:
    """Give the numbers as they are now."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 (heavy)

    class Collector:
        def collect(self) -> Iterator[Metric]:
            yield from _sessions(supervisor)
            yield from _traffic(supervisor)
            yield from _starts(supervisor)
            yield from _health(supervisor)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return bytes(generate_latest(registry))


def _sessions(supervisor: Supervisor) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    sessions = supervisor.sessions.values()
    counts = Counter(session.status for session in sessions)
    by_status = GaugeMetricFamily("kallichore_sessions", "Sessions by status.", labels=["status"])
    for status in Status:
        by_status.add_metric([str(status)], counts[status])
    yield by_status
    clients = sum(session.connected for session in sessions)
    yield GaugeMetricFamily("kallichore_clients", "Sessions with a client.", value=clients)
    spooled = sum(session.talk.outbox.spooled_bytes for session in sessions)
    backlog = GaugeMetricFamily(
        "kallichore_backlog_bytes", "Frames that clients have yet to read.", labels=["where"]
    )
    backlog.add_metric(["memory"], supervisor.budget.used)
    backlog.add_metric(["disk"], spooled)
    yield backlog


def _traffic(supervisor: Supervisor) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

    total = Counters()
    total.add(supervisor.tally.gone)
    for session in supervisor.sessions.values():
        total.add(session.talk.counters)
        total.dropped_frames += session.talk.outbox.dropped_frames
    messages = CounterMetricFamily("kallichore_messages", "Jupyter messages.", labels=["direction"])
    messages.add_metric(["from_kernel"], total.messages_from_kernel)
    messages.add_metric(["to_kernel"], total.messages_to_kernel)
    yield messages
    size = CounterMetricFamily(
        "kallichore_message_bytes", "Bytes of Jupyter messages.", labels=["direction"]
    )
    size.add_metric(["from_kernel"], total.bytes_to_client)
    size.add_metric(["to_kernel"], total.bytes_to_kernel)
    yield size
    refused = CounterMetricFamily(
        "kallichore_refused_messages", "Messages that could not be used.", labels=["why"]
    )
    refused.add_metric(["bad_signature"], total.bad_signatures)
    refused.add_metric(["malformed"], total.malformed)
    refused.add_metric(["unusable_client_frame"], total.unusable_frames)
    yield refused
    yield CounterMetricFamily(
        "kallichore_dropped_frames",
        "Stream output that made way because too much waited.",
        value=total.dropped_frames,
    )


def _starts(supervisor: Supervisor) -> Iterator[Metric]:
    from prometheus_client.core import (  # noqa: PLC0415
        CounterMetricFamily,
        HistogramMetricFamily,
    )

    tally, times = supervisor.tally, supervisor.tally.start_times
    starts = CounterMetricFamily("kallichore_kernel_starts", "Kernel starts.", labels=["outcome"])
    starts.add_metric(["failed"], tally.failed_starts)
    starts.add_metric(["succeeded"], sum(times.counts))
    yield starts
    yield CounterMetricFamily("kallichore_restarts", "Restarts asked for.", value=tally.restarts)
    yield CounterMetricFamily(
        "kallichore_lost_port_races",
        "Kernels started again because they lost the race for a port.",
        value=tally.lost_port_races,
    )
    buckets: list[tuple[str, float]] = []
    so_far = 0
    for bound, count in zip([*map(str, times.BOUNDS), "+Inf"], times.counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    histogram = HistogramMetricFamily(
        "kallichore_kernel_start_seconds", "From the start request to the kernel's answer."
    )
    histogram.add_metric([], buckets, sum_value=times.total)
    yield histogram


def _health(supervisor: Supervisor) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    lag = GaugeMetricFamily(
        "kallichore_loop_lag_seconds", "How late the loop wakes a task.", labels=["when"]
    )
    lag.add_metric(["last"], supervisor.tally.loop_lag_seconds)
    lag.add_metric(["worst"], supervisor.tally.worst_loop_lag_seconds)
    yield lag
    yield GaugeMetricFamily(
        "kallichore_uptime_seconds",
        "Seconds since the server started.",
        value=supervisor.status().uptime_seconds,
    )
