"""One server for all tests of this folder."""

import pytest

import demo_server

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The page, with two runs of our own."""
    place = tmp_path_factory.mktemp("demo")
    demo_server.write_runs(place / "runs")
    running = demo_server.Server(place, "--runs", str(place / "runs"))
    yield running
    running.stop()
    assert running.left() == []
    assert "Traceback" not in running.log.read_text()
