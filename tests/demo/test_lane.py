"""The queue: order, one at a time, bounds, leaving."""

import asyncio
import threading

import pytest

from espnetv2.demo.lane import FullError, GoneError, Lane


async def stays():
    return False


async def has_left():
    return True


def test_jobs_run_one_at_a_time_in_the_order_they_came():
    lane, order, at_once = Lane(9), [], []
    inside = threading.Semaphore(1)

    def job(number):
        at_once.append(inside.acquire(blocking=False))
        order.append(number)
        inside.release()
        return number

    async def visit(number):
        async with lane.place(str(number)):
            return await lane.run(lambda: job(number), stays)

    async def all_of_them():
        return await asyncio.gather(*(visit(number) for number in range(9)))

    assert asyncio.run(all_of_them()) == order == list(range(9))
    assert all(at_once)
    lane.close()


def test_position_counts_those_before_and_the_bound_holds():
    lane, go = Lane(2), threading.Event()

    async def check():
        async def visit(ticket):
            async with lane.place(ticket):
                return await lane.run(go.wait, stays)

        first = asyncio.create_task(visit("a"))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(visit("b"))
        await asyncio.sleep(0.05)
        assert (lane.position("a"), lane.position("b"), lane.position("c")) == (0, 1, None)
        with pytest.raises(FullError, match="2 requests are waiting") as caught:
            await visit("c")
        assert caught.value.seconds >= 1
        go.set()
        assert await asyncio.gather(first, second) == [True, True]
        assert lane.waiting == 0

    asyncio.run(check())
    lane.close()


def test_job_of_one_who_left_is_not_begun():
    lane, go, begun = Lane(3), threading.Event(), []

    async def check():
        async def first():
            async with lane.place("a"):
                await lane.run(go.wait, stays)

        task = asyncio.create_task(first())
        await asyncio.sleep(0.05)
        with pytest.raises(GoneError):
            async with lane.place("b"):
                await lane.run(lambda: begun.append(1), has_left)
        go.set()
        await task

    asyncio.run(check())
    lane.close()
    assert begun == []
    assert lane.waiting == 0


def test_errors_reach_who_asked_and_free_the_place():
    lane = Lane(1)

    async def visit():
        async with lane.place("a"):
            await lane.run(lambda: 1 / 0, stays)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(visit())
    assert lane.turn(lambda: 5) == 5
    lane.close()
