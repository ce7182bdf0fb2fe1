"""Results are made ahead of their use and come in the order in which they were asked for."""

import threading
import time

import pytest

from lake.in_flight import InFlight
from lake.timings import Timings


def test_results_come_in_order_whichever_is_made_first():
    first = threading.Event()
    with InFlight[str](2) as flight:
        flight.make(lambda: str(first.wait(10)))
        flight.make(lambda: first.set() or "second")
        assert [*flight.rest()] == ["True", "second"]


def test_at_most_so_many_wait():
    stop = threading.Event()
    with InFlight[int](3) as flight:
        flight.put(0)
        assert [*flight.beyond(2)] == [0]  # what is made does not wait
        for number in range(3):
            flight.make(lambda number=number: stop.wait(10) and number)
        assert [*flight.beyond(3)] == []
        stop.set()
        assert [*flight.rest()] == [0, 1, 2]


def test_with_one_thread_a_result_is_made_where_it_is_asked_for():
    threads = []
    with InFlight[None](1) as flight:
        flight.make(lambda: threads.append(threading.current_thread()))
        assert threads == [threading.current_thread()]
        assert [*flight.rest()] == [None]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_raised_and_what_was_not_begun_is_not_made(threads):
    begun: list[int] = []

    def fail() -> None:
        begun.append(1)
        time.sleep(0.05)
        raise ValueError("no sample")

    def work(flight: InFlight[None]) -> None:
        with flight:
            for _ in range(20):
                flight.make(fail)
            list(flight.rest())

    with pytest.raises(ValueError, match="no sample"):
        work(InFlight(threads))
    assert 1 <= len(begun) < 20


def test_what_several_are_made_of_is_held_once():
    stop = threading.Event()
    with InFlight[bool](2) as flight:
        for key, n_bytes in (("values 1", 10), ("values 1", 10), ("values 2", 5)):
            flight.make(lambda: stop.wait(10), of=key, n_bytes=n_bytes)
        assert flight.holds == 15
        stop.set()
        assert len([*flight.rest()]) == 3
        assert flight.holds == 0


def test_a_moment_of_two_stages_is_shared_out():
    timings = Timings()
    started = time.perf_counter()
    with timings.of("genes"):
        with timings.of("values"), timings.of("values", made=0):
            time.sleep(0.05)
        time.sleep(0.02)
    took = time.perf_counter() - started
    assert timings.counts == {"genes": 1, "values": 1}
    assert timings.seconds["values"] >= 0.025
    assert timings.seconds["genes"] >= timings.seconds["values"] + 0.02 - 1e-6
    assert sum(timings.seconds.values()) <= took


def test_time_between_stages_is_no_stage_s():
    timings = Timings()
    with timings.of("genes"):
        pass
    time.sleep(0.02)
    with timings.of("values"):
        pass
    assert sum(timings.seconds.values()) < 0.02
