"""One server for all tests of this folder."""

import pytest

import demo_server

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The page, with two runs of our own."""
    with demo_server.serving(tmp_path_factory.mktemp("demo")) as running:
        yield running
