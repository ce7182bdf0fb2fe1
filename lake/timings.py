"""How long the stages of a run take, also where several are at work at once."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Timings:
    """How often each kind of stage was made, and how long that took.

    A moment in which several kinds are at work is shared out among them in equal parts, so that all seconds
    together are no more than those of the clock on the wall.

    Attributes
    ----------
    counts : dict of str to int
    seconds : dict of str to float
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self._at_work: Counter[str] = Counter()
        self._since = time.perf_counter()
        self._lock = Lock()

    @contextmanager
    def of(self, kind: str, *, made: int = 1) -> Iterator[None]:
        """Time a stage that is made in this block, and count it; from any thread."""
        self._change(kind, 1)
        try:
            yield
        finally:
            self._change(kind, -1, made)

    def _change(self, kind: str, by: int, made: int = 0) -> None:
        with self._lock:
            now = time.perf_counter()
            kinds = +self._at_work
            for one in kinds:
                self.seconds[one] += (now - self._since) / len(kinds)
            self._since = now
            self._at_work[kind] += by
            self.counts[kind] += made
