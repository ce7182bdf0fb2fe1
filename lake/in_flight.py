"""Results that are made ahead of their use, and come in the order in which they were asked for."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Result]):
    future: Future[Result]
    key: str
    n_bytes: int


class InFlight(Generic[Result]):
    """Makes results in threads of its own; a context manager.

    Parameters
    ----------
    threads : int
        With one, each result is made when it is asked for, in the caller's thread.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead") if threads > 1 else None
        self._waiting: deque[_Waiting[Result]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def holds(self) -> int:
        """Bytes of what the results that wait are made of; what several are made of counts once."""
        return sum({waiting.key: waiting.n_bytes for waiting in self._waiting}.values())

    def make(self, function: Callable[[], Result], *, of: str = "", n_bytes: int = 0) -> None:
        """Have a result made, of something with a key that takes so many bytes."""
        if self._pool is not None:
            self._waiting.append(_Waiting(self._pool.submit(function), of, n_bytes))
        else:
            self.put(function())

    def put(self, result: Result) -> None:
        """Have a result that is there already come in its turn."""
        future: Future[Result] = Future()
        future.set_result(result)
        self._waiting.append(_Waiting(future, "", 0))

    def beyond(self, most: int) -> Iterator[Result]:
        """The oldest results, until at most so many wait and the next one of these is not made yet.

        Yields
        ------
        Result
            An error that making it raised is raised here.
        """
        while len(self._waiting) > most or (self._waiting and self._waiting[0].future.done()):
            yield self._waiting.popleft().future.result()

    def rest(self) -> Iterator[Result]:
        """All that wait."""
        return self.beyond(0)
