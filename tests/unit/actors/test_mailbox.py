"""Lanes, bound, timers, closing."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from manta.actors.errors import ActorDead, MailboxFull
from manta.actors.mailbox import Deadlines, Mailbox
from manta.testing import FakeClock


def drained(mailbox: Mailbox) -> list:
    items = []
    while len(mailbox):
        items.append(mailbox.get())
    return items


def test_the_urgent_lane_comes_first_and_each_lane_keeps_its_order():
    mailbox: Mailbox[str] = Mailbox(FakeClock())
    for item in "ab":
        mailbox.put(item)
    for item in "xy":
        mailbox.put_urgent(item)
    assert drained(mailbox) == ["x", "y", "a", "b"]


def test_a_full_mailbox_refuses_and_says_whose_it_is():
    mailbox: Mailbox[int] = Mailbox(FakeClock(), bound=2)
    mailbox.configure(FakeClock(), 2, "n:a#1")
    mailbox.put(1)
    mailbox.put(2)
    with pytest.raises(MailboxFull, match=r"n:a#1 has 2 messages waiting"):
        mailbox.put(3)
    mailbox.put_urgent(0)
    mailbox.put_unbounded(4)
    assert drained(mailbox) == [0, 1, 2, 4]


def test_a_closed_mailbox_gives_back_what_waited_and_refuses():
    mailbox: Mailbox[int] = Mailbox(FakeClock())
    mailbox.put(1)
    mailbox.put_urgent(0)
    mailbox.schedule(1, 2)
    assert mailbox.close("n:a#1 is dead") == [0, 1]
    assert mailbox.close("again") == []
    for put in (mailbox.put, mailbox.put_urgent, mailbox.put_unbounded):
        with pytest.raises(ActorDead, match="n:a#1 is dead"):
            put(1)
    with pytest.raises(ActorDead):
        mailbox.schedule(1, 1)
    with pytest.raises(ActorDead):
        mailbox.get()


def test_timers_come_in_the_order_of_their_time_and_not_before():
    clock = FakeClock()
    mailbox: Mailbox[str] = Mailbox(clock)
    mailbox.schedule(2, "late")
    mailbox.schedule(1, "early")
    mailbox.schedule(1, "early too")
    mailbox.put("now")
    assert mailbox.get() == "now"
    clock.advance(1)
    assert [mailbox.get(), mailbox.get()] == ["early", "early too"]
    assert mailbox.next_deadline() == 2
    clock.advance(5)
    assert mailbox.get() == "late"
    assert mailbox.next_deadline() is None


def test_a_cancelled_timer_does_not_come():
    clock = FakeClock()
    mailbox: Mailbox[str] = Mailbox(clock)
    timer = mailbox.schedule(1, "no")
    mailbox.schedule(2, "yes")
    timer.cancel()
    timer.cancel()
    clock.advance(3)
    assert mailbox.get() == "yes"


def test_what_a_cancelled_timer_would_have_brought_is_let_go():
    class Item:
        pass

    mailbox: Mailbox[Item] = Mailbox()
    item = Item()
    gone = weakref.ref(item)
    timer = mailbox.schedule(1_000, item)
    del item
    assert gone() is not None
    timer.cancel()
    gc.collect()
    assert gone() is None


def test_many_cancelled_timers_take_no_room():
    mailbox: Mailbox[int] = Mailbox(FakeClock())
    for number in range(10_000):
        mailbox.schedule(1_000 + number, number).cancel()
    assert len(mailbox._timers) < 200


def test_a_timer_that_is_always_due_does_not_starve_messages():
    mailbox: Mailbox[str] = Mailbox(FakeClock())
    for _ in range(3):
        mailbox.put("message")
        mailbox.schedule(0, "timer")
    got = [mailbox.get() for _ in range(6)]
    assert got == ["timer", "message"] * 3


def test_a_waiter_is_woken_by_each_way_to_put_and_by_time():
    clock = FakeClock()
    mailbox: Mailbox[str] = Mailbox(clock)
    got: list[str] = []
    more = threading.Semaphore(0)

    def serve() -> None:
        try:
            while True:
                got.append(mailbox.get())
                more.release()
        except ActorDead:
            got.append("closed")

    thread = threading.Thread(target=serve)
    thread.start()
    for put, item in ((mailbox.put, "a"), (mailbox.put_urgent, "b"), (mailbox.put_unbounded, "c")):
        put(item)
        assert more.acquire(timeout=60)
    mailbox.schedule(10, "d")
    clock.advance(10)
    assert more.acquire(timeout=60)
    mailbox.close("the end")
    thread.join(60)
    assert got == ["a", "b", "c", "d", "closed"]


def test_nothing_is_lost_between_many_senders_and_real_timers():
    mailbox: Mailbox[tuple[int, int]] = Mailbox(bound=100_000)
    count, senders = 2_000, 4

    def send(sender: int) -> None:
        for number in range(count):
            mailbox.put((sender, number))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    ticks = 200
    for number in range(ticks):
        mailbox.schedule(mailbox._clock.now() + number * 1e-5, (-1, number))
    got = [mailbox.get() for _ in range(count * senders + ticks)]
    for thread in threads:
        thread.join()
    for sender in range(-1, senders):
        numbers = [number for who, number in got if who == sender]
        assert numbers == list(range(ticks if sender < 0 else count))


def test_deadlines_close_though_a_signal_raised_before_their_thread_began(monkeypatch):
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    deadlines = Deadlines(FakeClock(), "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            deadlines.add(1.0, lambda: None)
    deadlines.close()
    assert not deadlines.running
