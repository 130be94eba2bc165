"""A runtime made slower by a known time an image, to see whether the harness finds a slowdown. Not in the registry."""

import time
from pathlib import Path

from bench.runtimes.base import PlainSession, Runtime, Session
from convert.artifact import ENCODER
from models.decoding import Tensors


class SlowedRuntime:
    """Another runtime, whose encoder (or fused graph) takes `delay_seconds` longer."""

    by_default = False

    def __init__(self, runtime: Runtime, delay_seconds: float) -> None:
        self.name, self.package, self.module = runtime.name, runtime.package, runtime.module
        self.formats = runtime.formats
        self._runtime = runtime
        self._delay_seconds = delay_seconds

    def load(self, path: Path, *, threads: int) -> Session:
        """The other runtime's session; slowed where it is run once an image."""
        session = self._runtime.load(path, threads=threads)
        return _SlowedSession(session, self._delay_seconds) if path.stem in (ENCODER, "fused") else session


class _SlowedSession(PlainSession):
    def __init__(self, session: Session, delay_seconds: float) -> None:
        self._session = session
        self._delay_seconds = delay_seconds

    def run(self, feeds: Tensors) -> Tensors:
        outputs = self._session.run(feeds)
        end = time.perf_counter() + self._delay_seconds
        while time.perf_counter() < end:
            pass  # busy, as a slower kernel would be
        return outputs
