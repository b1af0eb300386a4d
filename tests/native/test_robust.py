"""Damaged files and many threads, under the compiler's sanitizers."""

import os
import re

import pytest

from native.programs import built, done, need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # each compiles the engine

MOST_MEMORY = 3000  # MB that a hostile file may make the fuzz program take


def test_no_damaged_or_invented_file_harms(files, tmp_path):
    need("cmake", "c++")
    folder = built("fuzz", "contexts", ESPNETV2_TESTS="ON", ESPNETV2_SANITIZE="address,undefined")
    environment = os.environ | {
        "ASAN_OPTIONS": f"detect_leaks=1:hard_rss_limit_mb={MOST_MEMORY}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FUZZ_KEEP": str(tmp_path / "last.espnetv2"),
    }
    tried = loaded = 0
    for seed, isa in enumerate(("", "plain", "avx2" if os.uname().machine == "x86_64" else "")):
        said = done(
            folder / "fuzz", seed, 100_000, 60, *files.values(),
            env=environment | {"ESPNETV2_NATIVE_ISA": isa},
        )  # fmt: skip
        for count, others in re.findall(r"(\d+) tried, (\d+) loaded", said):
            tried += int(count)
            loaded += int(others)
    assert tried >= 300
    assert loaded >= 30  # else it tests the reader of JSON alone


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined"])
def test_contexts_on_many_threads_race_for_nothing(sanitizers, files):
    need("cmake", "c++")
    folder = built("fuzz", "contexts", ESPNETV2_TESTS="ON", ESPNETV2_SANITIZE=sanitizers)
    said = done(
        folder / "contexts", *files.values(), env=os.environ | {"TSAN_OPTIONS": "halt_on_error=1"}
    )
    assert "7 models, 112 contexts, 0 unlike" in said
