"""A project without Python finds the installed engine and links either library."""

import shutil

import pytest

from native.programs import NATIVE, built, done, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # compiles the engine


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    need("cmake", "c++")
    prefix = tmp_path_factory.mktemp("prefix")
    done("cmake", "--install", built(CMAKE_INSTALL_LIBDIR="lib"), "--prefix", prefix)
    return prefix


@pytest.mark.parametrize("shared", ["ON", "OFF"])
def test_a_consumer_runs_a_model(shared, prefix, files):
    source = NATIVE / "examples" / "consumer"
    folder = built(source=source, CMAKE_PREFIX_PATH=str(prefix), SHARED_ENGINE=shared)
    said = done(folder / "consumer", files["espnetv2_s0_5"], 64, 96)
    assert said.split() == ["logits", "1", "5"]
    assert done(folder / "consumer", files["espnetv2_seg_s0_5"], 64, 96).split()[1:] == [
        "1",
        "64",
        "96",
    ]


def test_the_stripped_library_is_small(prefix, tmp_path):
    need("strip")
    shutil.copy(prefix / "lib" / "libespnetv2.so", tmp_path / "stripped.so")
    done("strip", tmp_path / "stripped.so")
    assert (tmp_path / "stripped.so").stat().st_size < 1_000_000
