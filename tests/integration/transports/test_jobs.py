"""The queue through which threads reach a thread that waits for descriptors."""

from __future__ import annotations

import select
import threading

import pytest

from manta.transports.jobs import JobQueue


@pytest.fixture
def queue():
    made = JobQueue()
    yield made
    made.stop()
    made.close()


def is_readable(queue: JobQueue) -> bool:
    return bool(select.select([queue.fd], [], [], 0)[0])


def elsewhere(call) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_jobs_are_taken_once_and_in_the_order_of_the_posts(queue):
    jobs = [lambda: None for _ in range(3)]
    assert [queue.post(job) for job in jobs] == [True, True, True]
    assert queue.take() == jobs
    assert queue.take() == []


def test_the_descriptor_is_readable_from_a_post_until_the_jobs_are_taken(queue):
    queue.take()
    assert queue.idle
    assert not is_readable(queue)
    for _ in range(2):
        elsewhere(lambda: queue.post(print))
    assert not queue.idle
    assert is_readable(queue)
    queue.take()
    assert queue.idle
    assert not is_readable(queue)


def test_what_the_taking_thread_posts_itself_makes_the_queue_busy_without_a_write(queue):
    queue.take()
    queue.post(print)
    assert not queue.idle
    assert not is_readable(queue)


def test_what_was_accepted_before_the_stop_is_still_taken_and_nothing_after_it(queue):
    queue.take()
    queue.post(print)
    elsewhere(queue.stop)
    queue.stop()
    assert queue.stopped
    assert is_readable(queue)
    assert not queue.post(repr)
    assert queue.take() == [print]
    assert not queue.idle
