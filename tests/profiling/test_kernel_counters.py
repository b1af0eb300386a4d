"""Counters of a GPU's kernels with a fake `ncu`; and its load and clocks with a fake NVML."""

import sys
from types import SimpleNamespace

import pytest
import torch

import fake_ncu
from espnetv2.errors import UserError
from espnetv2.profiling import counted_run, row_counters
from espnetv2.profiling.case import Case
from espnetv2.profiling.gpu_load import watch
from espnetv2.profiling.kernel_counters import METRICS, count, find_profiler
from espnetv2.profiling.row_counters import counted, gpu_index
from fake_power import Clock

# nanoseconds, % active, warp and thread instructions, sectors loaded and stored, % asked for
LONG = ["3,000", "80", "1,000", "32,000", "600", "200", "100", "50"]
SHORT = ["1,000", "20", "3,000", "48,000", "0", "200", "n/a", "25.0"]


def counters(folder, *kernels, **options):
    return count(
        ["python", "-c", "pass"],
        profiler=fake_ncu.install(folder, fake_ncu.table(*kernels), **options),
    )


def test_each_kernel_counts_by_its_time_its_instructions_and_its_bytes(tmp_path):
    found = counters(tmp_path, LONG, SHORT)
    assert (found.kernels, found.gpu_microseconds) == (2, 4.0)
    assert found.sm_active == pytest.approx((3 * 80 + 1 * 20) / 4)
    assert found.warp_execution_efficiency == pytest.approx(100 * 80_000 / (32 * 4_000))
    assert found.memory_efficiency == pytest.approx((600 * 100 + 200 * 50 + 200 * 25) / 1000)


def test_a_full_warp_and_whole_sectors_are_a_hundred_percent(tmp_path):
    found = counters(tmp_path, ["10", "100", "7", "224", "9", "9", "100", "100"])
    assert found.sm_active == found.memory_efficiency == 100
    assert found.warp_execution_efficiency == 100


def test_kernels_that_load_and_store_nothing_have_no_memory_efficiency(tmp_path):
    assert counters(tmp_path, [*SHORT[:4], "0", "0", "n/a", "nan"]).memory_efficiency is None


def test_the_profiler_is_told_to_leave_the_clocks_and_to_wait_for_the_marks(tmp_path):
    counters(tmp_path, LONG)
    given = fake_ncu.arguments(tmp_path)
    pairs = {a: b for a, b in zip(given, given[1:], strict=False)}  # noqa: C416, RUF007
    assert pairs["--clock-control"] == "none"
    assert pairs["--profile-from-start"] == "off"
    assert pairs["--metrics"].split(",") == list(METRICS)
    assert given[-3:] == ["python", "-c", "pass"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU "
            "Performance Counters on the target device 0.\n",
            "only root read the counters",
        ),
        (
            "==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n",
            "ncu: Failed to initialize the profiler: LibraryNotLoaded",
        ),
        (
            "==PROF== Connected to process 1\n==WARNING== No kernels were profiled.\n",
            "ncu: No kernels were profiled.",
        ),
        (
            "Traceback\nespnetv2.errors.UserError: no such network\n",
            "ncu: no such network",
        ),
        ("", r"ncu: gave no table \(exit code 9\)"),
    ],
)
def test_what_the_profiler_complains_of_is_one_line(tmp_path, output, words):
    place = fake_ncu.install(tmp_path, output, code=9)
    with pytest.raises(UserError, match=words) as told:
        count(["python"], profiler=place)
    assert "\n" not in str(told.value)


def test_a_complaint_on_the_other_stream_is_heard_too(tmp_path):
    place = fake_ncu.install(tmp_path, "", code=1, complaint="==ERROR== Unknown Error\n")
    with pytest.raises(UserError, match="ncu: Unknown Error"):
        count(["python"], profiler=place)


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_value_that_no_kernel_has_is_named(tmp_path, lost):
    kernel = [*LONG[:lost], "n/a", *LONG[lost + 1 :]]
    with pytest.raises(UserError, match=f"gives no {METRICS[lost]}"):
        counters(tmp_path, kernel, kernel)


def test_a_profiler_that_hangs_is_ended(tmp_path):
    place = fake_ncu.install(tmp_path, fake_ncu.table(LONG), seconds=60)
    with pytest.raises(UserError, match=r"longer than 0\.5 s"):
        count(["python"], profiler=place, patience=0.5)


def test_a_profiler_that_cannot_be_started_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not run"):
        count(["python"], profiler=str(tmp_path / "nowhere"))


def test_the_profiler_is_found_on_the_path_or_where_packages_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="profiler is not installed here"):
        find_profiler(tmp_path)
    for version in ("2024.1.0", "2025.3.1"):
        place = tmp_path / "opt/nvidia/nsight-compute" / version
        place.mkdir(parents=True)
        fake_ncu.install(place, "")
    assert find_profiler(tmp_path) == str(tmp_path / "opt/nvidia/nsight-compute/2025.3.1/ncu")
    (tmp_path / "bin").mkdir()
    assert find_profiler(tmp_path) != (own := fake_ncu.install(tmp_path / "bin", ""))
    assert find_profiler(tmp_path) == own


# NVML


class NvmlError(Exception):
    pass


def nvml(clock, *, broken=""):
    """A GPU that is 40, 60, 40, 60, ... percent busy at 1500 and 1700 MHz; it sets nothing."""
    looks = iter(range(10_000))

    def shares(handle):
        if broken:
            raise NvmlError(broken)
        number = next(looks)
        odd = number % 2
        return SimpleNamespace(gpu=(40, 60)[odd], memory=(10, 12)[odd])

    return SimpleNamespace(
        NVMLError=NvmlError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"GPU {handle}",
        nvmlDeviceGetUtilizationRates=shares,
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1600, 2: 2619}[kind],
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: {1: 1980, 2: 2619}[kind],
    )


def test_a_load_is_looked_at_after_it_has_settled(monkeypatch):
    clock = Clock()
    monkeypatch.setitem(sys.modules, "pynvml", nvml(clock))
    calls = []

    def run():
        calls.append(clock.now)
        clock.sleep(0.125)

    found = watch(run, index=3, seconds=2.0, clock=clock)
    assert found.samples == 16
    assert len(calls) == 24  # a second of settling before
    assert (found.gpu, found.utilisation, found.memory_utilisation) == ("GPU 3", 50, 11)
    assert (found.sm_mhz, found.memory_mhz, found.most_sm_mhz) == (1600, 2619, 1980)


@pytest.mark.parametrize("broken", ["Not Supported", "Driver Not Loaded"])
def test_a_driver_that_says_no_is_a_reason(monkeypatch, broken):
    clock = Clock()
    monkeypatch.setitem(sys.modules, "pynvml", nvml(clock, broken=broken))
    with pytest.raises(UserError, match=f"NVML: {broken}"):
        watch(lambda: clock.sleep(0.1), clock=clock)


def test_without_its_package_the_reason_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UserError, match=r'NVML: .* pip install "espnetv2\[energy\]"'):
        watch(lambda: None)


# a row of a benchmark


ROW = {"ms_median": 4.0, "batch": 1, "device": "cuda"}


class Worker:
    def __init__(self):
        self.calls = []

    def run(self, calls):
        self.calls.append(calls)


def test_a_row_has_load_and_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_ncu.install(tmp_path, fake_ncu.table(LONG, SHORT))
    clock = Clock()
    worker = SimpleNamespace(run=lambda calls: clock.sleep(calls * 0.004))
    watched = row_counters.gpu_load.watch
    monkeypatch.setitem(sys.modules, "pynvml", nvml(clock))
    monkeypatch.setattr(
        row_counters.gpu_load, "watch", lambda run, index: watched(run, index=index, clock=clock)
    )
    case = Case("espnetv2_s0_5", "cudagraph", size=(64, 96), device="cuda:1")
    found = counted(worker, case, ROW)
    assert found["gpu_load"]["gpu"] == "GPU 1"
    assert found["gpu_load"]["utilisation"] == pytest.approx(50, abs=1)
    assert found["gpu_kernels"]["kernels"] == 2
    *_, module, text = fake_ncu.arguments(tmp_path)
    assert module == "espnetv2.profiling.counted_run"
    assert '"size": [64, 96]' in text
    assert '"device": "cuda:1"' in text


def test_what_lacks_says_why_and_the_other_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    fake_ncu.install(tmp_path, fake_ncu.table(LONG))
    found = counted(Worker(), Case("espnetv2_s0_5", "torch", device="cuda"), ROW)
    assert found["gpu_load"].startswith("not available (NVML: ")
    assert found["gpu_kernels"]["kernels"] == 1


def test_on_a_cpu_there_are_none():
    found = counted(Worker(), Case("espnetv2_s0_5", "torch"), ROW)
    assert set(found) == {"gpu_load", "gpu_kernels"}
    assert all(
        one.startswith("not available (the network runs on the CPU") for one in found.values()
    )


def test_the_program_that_is_counted_marks_one_warm_call(monkeypatch):
    events = []
    monkeypatch.setattr(counted_run, "open_case", lambda case: lambda: events.append(case.size))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: events.append("start"))
    monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: events.append("stop"))
    counted_run.main('{"model": "espnetv2_s0_5", "engine": "torch", "size": [64, 96]}')
    size = (64, 96)
    assert events == [size, size, size, "start", size, "stop"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_program_runs_a_real_case_and_says_that_there_is_no_gpu():
    with pytest.raises(UserError, match="no GPU here"):
        counted_run.main('{"model": "espnetv2_s0_5", "engine": "torch", "size": [64, 64]}')


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_a_device_names_a_gpu(device, index):
    assert gpu_index(device) == index


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_each_kind_is_counted_or_a_reason():
    case = Case("espnetv2_s0_5", "cudagraph", size=(64, 64), device="cuda")
    call = counted_run.open_case(case)
    worker = SimpleNamespace(run=lambda calls: [call() for _ in range(calls)])
    found = counted(worker, case, ROW)
    for values in found.values():
        if isinstance(values, str):
            assert values.startswith("not available (")
        else:
            shares = [one for name, one in values.items() if "eff" in name or "active" in name]
            assert all(0 < one <= 100 for one in shares)
