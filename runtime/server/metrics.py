"""Counts for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ortsep.server.service import Service
from ortsep.server.store import Job


class Metrics:
    """A registry of a server's own, so that several in one process don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "ortsep_separations"
        self._ended = Counter(f"{name}_ended", "Jobs that ended, by how.", ["outcome", "model"], registry=self.registry)
        self._audio = Counter("ortsep_audio_seconds", "Seconds of audio separated.", ["model"], registry=self.registry)
        self._taken = Histogram(
            f"{name}_seconds",
            "Time a job took.",
            ["model"],
            registry=self.registry,
            buckets=(1, 3, 10, 30, 60, 180, 600, 1800, 7200),
        )
        self._jobs = Gauge(name, "Jobs, by state.", ["state"], registry=self.registry)
        self._workers = Gauge("ortsep_workers", "Processes that separate.", registry=self.registry)
        self._uploads = Counter("ortsep_uploads", "Songs received, by HTTP status.", ["status"], registry=self.registry)

    def ended(self, job: Job, outcome: str) -> None:
        model = str(job.request["model"])
        self._ended.labels(outcome, model).inc()

    def measured(self, model: str, seconds: float, took: float) -> None:
        """A job is done: ``seconds`` of audio in ``took`` seconds."""
        self._audio.labels(model).inc(seconds)
        self._taken.labels(model).observe(took)

    def upload(self, status: int) -> None:
        self._uploads.labels(str(status)).inc()

    def text(self, service: Service) -> bytes:
        for state, count in service.store.counts().items():
            self._jobs.labels(state).set(count)
        self._workers.set(service.pool.alive)
        return generate_latest(self.registry)
