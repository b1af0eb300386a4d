"""Many at once: none is lost, what is too much is told to come back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import demo_server

CLASSIFIER = "espnetv2_s0_5.imagenette"


def test_50_at_once_are_all_answered(server):
    content = demo_server.picture()
    expected = server.post("/predict", content, network=CLASSIFIER)[1]["result"]
    with ThreadPoolExecutor(50) as pool:
        asked = [
            pool.submit(server.post, "/predict", content, network=CLASSIFIER) for _ in range(50)
        ]
        answers = [one.result() for one in asked]
    assert [status for status, _ in answers] == [200] * 50
    assert all(answer["result"] == expected for _, answer in answers)
    assert max(answer["milliseconds"]["wait"] for _, answer in answers) > 0
    assert server.get("/health")[1]["waiting"] == 0
    assert server.left() == []


@pytest.mark.slow
def test_half_a_minute_of_visitors_loses_none(server):
    contents = [demo_server.picture(), demo_server.picture(320, 240, "PNG", "astronaut.jpg")]
    until, counts, bad = time.monotonic() + 30, [], []

    def visit(number):
        done = 0
        while time.monotonic() < until:
            status, answer = server.post(
                "/predict",
                contents[(done + number) % 2],
                network=("", CLASSIFIER, "run:wide")[(done + number) % 3],
            )
            if status != 200:
                bad.append((status, answer))
            done += 1
        counts.append(done)

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert bad == []
    assert len(counts) == 8
    assert min(counts) > 0
    assert server.left() == []
    assert server.get("/health")[1]["waiting"] == 0


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A server with room for two."""
    running = demo_server.Server(
        tmp_path_factory.mktemp("narrow"), "--queue", "2", "--weights", CLASSIFIER
    )
    yield running
    running.stop()


def test_full_queue_says_when_to_come_back(narrow):
    """Of ten at once some wait and are answered, the others are told to return."""
    content = demo_server.picture(2000, 1500)
    body, kind = demo_server.form(content, "x.jpg", {})
    with ThreadPoolExecutor(10) as pool:
        asked = [
            pool.submit(narrow.request, "POST", "/predict", body, {"Content-Type": kind})
            for _ in range(10)
        ]
        answers = [one.result() for one in asked]
    assert {status for status, _, _ in answers} == {200, 503}
    for status, headers, answer in answers:
        if status == 503:
            assert int(headers["retry-after"]) >= 1
            assert b"try again" in answer
    assert narrow.post("/predict", content)[0] == 200


def test_page_is_up_within_ten_seconds(server, narrow):
    """The page by the clock, the first network in processor seconds: the machine is shared."""
    starts = (server, narrow)
    assert min(one.up for one in starts) < 10
    used = [second for one in starts for second in (one.ready, one.processor)]
    assert min(used) < 10, used
