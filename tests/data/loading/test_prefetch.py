import threading
import time

import pytest

from data.loading.prefetch import prefetch


def test_results_come_in_order_and_ahead():
    made = []

    def make(step):
        made.append(step)
        return step * step

    with prefetch(make, start=3, depth=4) as results:
        assert [next(results) for _ in range(10)] == [step * step for step in range(3, 13)]
        deadline = time.monotonic() + 5
        while len(made) < 14 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == list(range(3, 17))  # four ahead and no more


def test_an_exception_comes_in_its_turn():
    def make(step):
        if step == 2:
            raise ValueError("step 2")
        return step

    with prefetch(make, start=0, depth=8) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="step 2"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_closing_does_not_wait_for_a_full_queue():
    results = prefetch(lambda step: step, start=0, depth=1)
    next(results)
    results.close()
    assert not results._thread.is_alive()
    with pytest.raises(StopIteration):
        next(results)


def test_closing_does_not_wait_for_a_stuck_reader():
    stuck = threading.Event()
    results = prefetch(lambda step: stuck.wait(60), start=0, depth=1)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 20
    stuck.set()


def test_a_consumer_that_waits_is_woken_by_closing():
    stuck = threading.Event()
    results = prefetch(lambda step: stuck.wait(60), start=0, depth=1)
    threading.Timer(0.1, results.close).start()
    start = time.monotonic()
    with pytest.raises(StopIteration):
        next(results)
    assert time.monotonic() - start < 10
    stuck.set()


def test_waiting_is_measured():
    with prefetch(lambda step: time.sleep(0.05), start=0, depth=1) as results:
        next(results)
        next(results)
        assert 0.05 < results.waited_s < 2
