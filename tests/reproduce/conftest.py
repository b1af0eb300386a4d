"""One run of the reports that need no picture and no data, shared by the tests."""

import pathlib

import pytest

from espnetv2.reproduce.catalog import CATALOG
from espnetv2.reproduce.sources import Sources

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def reports():
    """A function from a name to its report, from this clone and without data."""
    made = {}

    def report(name):
        if name not in made:
            made[name] = CATALOG[name].report(Sources(None, ROOT))
        return made[name]

    return report
