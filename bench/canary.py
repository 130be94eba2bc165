"""A known loop beside every sample: it tells whether the machine runs at full speed just now.

A virtual machine's core shares its execution units with a neighbour that it can't see: here it switches between full
speed and 1.7 times slower every 0.1 to 3 seconds, and no counter says so. A sample is taken only when the loop runs at
its best, and is left out when the loop is slower right after it. Spread between processes fell from 20 % to 2 or 3 %.
"""

import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Of the loop's best time: above it the machine is slowed. At full speed readings scatter by about 5 %, and the slow
# state is 35 to 70 % above.
TOLERANCE = 1.10
# The best time is a low quantile: a minimum would be the clock's luck.
BEST_QUANTILE = 0.02
CALIBRATION_SECONDS = 4.0
# Between two looks at a slowed machine.
_PAUSE_SECONDS = 0.0005
# Integer work with branches, about 30 us, without the interpreter's lock, so that threads run it at the same time.
_TEXT = np.random.default_rng(2012).integers(97, 123, 4096, dtype=np.uint8).tobytes()
# After a caption the caches and the branch predictor are the caption's: the first pass takes 1.8 times as long, the
# fourth no longer than the hundredth. A slowed machine is slow in all of them.
_PASSES = 4


class Canary:
    """Reads the machine's speed on as many threads as the runtime uses.

    `reference` is the loop's best time in seconds; None never waits. `patience_seconds` is all that this canary will
    ever wait, so that a machine that is never at full speed is still measured.
    """

    def __init__(self, reference: float | None, *, threads: int, patience_seconds: float) -> None:
        self.reference = reference
        self.patience_seconds = patience_seconds
        self.last_was_clean = True  # whether the sample before the last `wait` ended at full speed
        self._before: list[float] = []
        self._after: list[float] = []
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._threads = threads

    def read(self) -> float:
        """Seconds of the loop now: on the slowest of the threads."""
        if self._pool is None:
            return _loop_seconds()
        return max(self._pool.map(lambda _: _loop_seconds(), range(self._threads)))

    def wait(self) -> None:
        """Return when the machine runs at full speed, or patience is at an end; between two samples.

        The first reading tells how the last sample ended, the last one how the next begins.
        """
        start = time.perf_counter()
        reading = self.read()
        self._after.append(reading)
        self.last_was_clean = not self._is_slow(reading) or not self.patience_seconds
        while self._is_slow(reading) and time.perf_counter() - start < self.patience_seconds:
            time.sleep(_PAUSE_SECONDS)
            reading = self.read()
        self.patience_seconds = max(0.0, self.patience_seconds - (time.perf_counter() - start))
        self._before.append(reading)

    def take_readings(self) -> list[tuple[float, float]]:
        """The readings before and after each sample since the last call."""
        after = [*self._after[1:], self.read()] if self._before else []
        pairs = list(zip(self._before, after, strict=True))
        self._before, self._after = [], []
        return pairs

    def _is_slow(self, reading: float) -> bool:
        return self.reference is not None and reading > TOLERANCE * self.reference


def best_of(readings: list[float]) -> float:
    """The loop's time at full speed, of many readings."""
    return float(np.quantile(readings, BEST_QUANTILE))


def is_clean(before: float, after: float, reference: float) -> bool:
    """Whether the machine ran at full speed around a sample."""
    return max(before, after) <= TOLERANCE * reference


def calibrate(seconds: float, *, threads: int) -> float:
    """The loop's best time over so many seconds."""
    canary = Canary(None, threads=threads, patience_seconds=0.0)
    end = time.perf_counter() + seconds
    readings = [canary.read()]
    while time.perf_counter() < end:
        readings.append(canary.read())
    return best_of(readings)


def _loop_seconds() -> float:
    """The shortest of a few passes."""
    return min(_pass_seconds() for _ in range(_PASSES))


def _pass_seconds() -> float:
    start = time.perf_counter()
    zlib.compress(_TEXT, 1)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(calibrate(float(sys.argv[1]), threads=int(sys.argv[2])))
