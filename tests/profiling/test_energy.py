"""Energy: exact with counters and clocks of our own, real where a GPU is at hand."""

import json
import queue
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from espnetv2.errors import UserError
from espnetv2.profiling.counters import JetsonRails, NvmlTotal, Rapl, survey
from espnetv2.profiling.energy import describe, find_counters, measure

PAUSE = 0.125  # seconds of one call; a sum of powers of two, so that results are exact


class Clock:
    """Time passes only in `sleep`; `watts` says how much power is drawn meanwhile."""

    def __init__(self, watts=8.0):
        self.now, self.used, self.watts, self.listeners = 0.0, 0.0, watts, []

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.used += self.watts * seconds
        for listener in self.listeners:
            listener(seconds)


class Counter:
    method, covers = "fake", "board"

    def __init__(self, clock, stated_rate=1000.0, tick=None):
        self.clock, self.stated_rate, self.tick, self.seen = clock, stated_rate, tick, (-1, 0.0)

    def joules(self):
        if self.tick is None:
            return self.clock.used
        tick = int(self.clock.now / self.tick)
        if tick != self.seen[0]:
            self.seen = (tick, self.clock.used)
        return self.seen[1]


def load(clock, powers):
    """A call that draws the next power, then falls back to the idle one."""

    def run():
        idle, clock.watts = clock.watts, next(powers)
        clock.sleep(PAUSE)
        clock.watts = idle

    return run


def measured(powers=(40.0,), calls=8, counter=None, clock=None, **options):
    """Each repeat has `calls` calls at one of the powers."""
    clock = clock or Clock()
    options = {"images": 4, "repeats": len(powers), "idle_seconds": 0.5} | options
    return measure(
        load(clock, (power for power in powers for _ in range(calls))),
        counter=counter or Counter(clock),
        seconds=(calls - 0.5) * PAUSE,
        clock=clock,
        **options,
    )


def test_idle_power_is_subtracted():
    energy = measured([40.0])
    assert energy.millijoules_per_image == pytest.approx(1000 * (40 - 8) * PAUSE / 4, rel=1e-12)
    assert energy.idle_watts == pytest.approx(8, rel=1e-12)
    assert energy.load_watts == pytest.approx(40, rel=1e-12)


def test_the_median_of_the_repeats_counts_and_the_spread_is_told():
    energy = measured([40.0, 104.0, 48.0])
    assert energy.millijoules_per_image == pytest.approx(1000 * (48 - 8) * PAUSE / 4, rel=1e-12)
    assert energy.spread == pytest.approx(1000 * (104 - 40) * PAUSE / 4, rel=1e-12)
    assert (energy.load_watts, energy.repeats) == (pytest.approx(48, rel=1e-12), 3)


def test_a_single_repeat_has_no_spread():
    energy = measured([40.0])
    assert energy.spread is None
    assert "spread" not in describe(energy)


def test_idle_comes_before_the_first_call():
    clock, moments = Clock(), []

    def run():
        moments.append(clock.now)
        clock.watts = 40.0  # and stays there
        clock.sleep(PAUSE)

    energy = measure(
        run, counter=Counter(clock), images=1, seconds=1, idle_seconds=0.75, clock=clock
    )
    assert moments[0] == pytest.approx(0.75, abs=0.1)
    assert energy.idle_watts == pytest.approx(8, rel=1e-12)


def test_a_call_longer_than_the_time_runs_once_per_repeat():
    clock, calls = Clock(), []

    def run():
        calls.append(None)
        clock.watts = 24.0
        clock.sleep(64)

    energy = measure(run, counter=Counter(clock), images=2, seconds=1, repeats=2, clock=clock)
    assert len(calls) == 2
    assert energy.millijoules_per_image == pytest.approx(1000 * (24 - 8) * 64 / 2)


def test_the_rate_is_measured_where_nobody_states_it():
    clock = Clock()
    energy = measured(counter=Counter(clock, None, tick=0.05), clock=clock)
    assert energy.rate == pytest.approx(20, rel=0.05)
    assert energy.rate_measured
    assert not measured().rate_measured


def test_json_and_description_hold_the_method():
    energy = measured([40.0, 48.0, 56.0])
    values = json.loads(json.dumps(energy.to_json()))
    assert values == energy.to_json()
    assert (values["method"], values["rate"], values["repeats"]) == ("fake", 1000.0, 3)
    text = "1250 mJ/image (spread 500), 48 W under load, 8 W idle; fake at 1e+03 Hz, repeats 3"
    assert describe(energy) == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "images=0"),
        ({"repeats": 0}, "repeats=0"),
        ({"idle_seconds": 0.005}, "idle_seconds=0.005 sees too few updates.*0.01 or more"),
        ({"powers": [8.0]}, "no more power than the idle machine"),
        ({"powers": [4.0]}, "no more power than the idle machine"),
    ],
)
def test_what_cannot_be_measured_is_said(options, words):
    with pytest.raises(UserError, match=words):
        measured(**options)


@pytest.mark.parametrize("rate", [1000.0, None])
def test_a_counter_that_stands_still_gives_no_energy(rate):
    with pytest.raises(UserError, match="fake: the counter d"):
        measured(clock=Clock(watts=0.0), powers=[0.0], counter=Counter(Clock(0.0), rate))


# RAPL


def tree(root, **zones):
    """Zones of powercap: `_0_1="core"` is intel-rapl:0:1; each counts from 1000 to 10,000 J."""
    base = root / "sys" / "class" / "powercap"
    (base / "intel-rapl").mkdir(parents=True)  # the control type
    for name, kind in zones.items():
        zone = base / f"intel-rapl{name.replace('_', ':')}"
        zone.mkdir()
        (zone / "name").write_text(kind + "\n")
        (zone / "max_energy_range_uj").write_text("10000000000\n")
        put(zone, 1000)
    return base


def put(zone, joules):
    (zone / "energy_uj").write_text(f"{joules * 1_000_000}\n")


def test_rapl_goes_on_counting_when_a_package_begins_again(tmp_path):
    base = tree(tmp_path, _0="package-0")
    counter = Rapl(base)
    values = []
    for joules in (4000, 9990, 5, 3000, 1):
        put(base / "intel-rapl:0", joules)
        values.append(counter.joules())
    assert values == [3000, 8990, 9005, 12000, 19001]


def test_rapl_adds_packages_and_counts_no_zone_twice(tmp_path):
    base = tree(
        tmp_path, _0="package-0", _0_0="core", _0_1="dram", _1="package-1", _1_0="core", _2="psys"
    )
    (base / "intel-rapl-mmio:0").mkdir()  # the same package, seen another way
    (base / "intel-rapl-mmio:0" / "name").write_text("package-0\n")
    counter = Rapl(base)
    for zone in base.glob("intel-rapl:*"):
        put(zone, 1500)
    assert counter.joules() == 1000
    assert (counter.method, counter.covers) == ("RAPL package-0 + package-1", "cpu")


def test_rapl_wraps_each_package_by_itself(tmp_path):
    base = tree(tmp_path, _0="package-0", _1="package-1")
    (base / "intel-rapl:1" / "max_energy_range_uj").write_text("2000000000")
    counter = Rapl(base)
    put(base / "intel-rapl:0", 1010)
    put(base / "intel-rapl:1", 7)
    assert counter.joules() == 10 + 1007


def test_a_wrap_in_a_long_load_is_seen(tmp_path):
    """Two wraps pass between the ends; looks in between catch each."""
    base, clock = tree(tmp_path, _0="package-0"), Clock(watts=10.0)
    counter, power = Rapl(base), 6000.0
    clock.listeners.append(lambda _: put(base / "intel-rapl:0", int(1000 + clock.used) % 10000))

    def run():
        clock.watts = power
        clock.sleep(0.5)

    energy = measure(
        run, counter=counter, images=1, seconds=4, repeats=1, idle_seconds=1, clock=clock
    )
    assert energy.load_watts == pytest.approx(power, rel=1e-3)


def test_a_file_for_root_only_is_a_reason_of_one_line(tmp_path, monkeypatch):
    tree(tmp_path, _0="package-0", _1="package-1")
    read = Path.read_text

    def denied(path, *arguments, **options):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    found = survey(tmp_path, Clock())
    assert found.counters == []
    (reason,) = [line for line in found.reasons if line.startswith("RAPL")]
    assert "only root may read" in reason
    assert "sudo chmod a+r" in reason
    assert "\n" not in describe(None, reason)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda zone: (zone / "energy_uj").write_text("none"), "holds 'none', not a number"),
        (lambda zone: (zone / "max_energy_range_uj").unlink(), "max_energy_range_uj cannot be"),
    ],
)
def test_damaged_powercap_files_are_told(tmp_path, damage, words):
    base = tree(tmp_path, _0="package-0")
    damage(base / "intel-rapl:0")
    with pytest.raises(UserError, match=words):
        Rapl(base)


def test_only_a_counter_that_moves_is_found(tmp_path):
    base, clock = tree(tmp_path, _0="package-0"), Clock()
    stuck = survey(tmp_path, clock)
    assert stuck.counters == []
    assert "RAPL package-0: the counter does not move" in stuck.reasons
    clock.listeners.append(lambda _: put(base / "intel-rapl:0", 1000 + int(1000 * clock.now) % 9))
    (counter,) = survey(tmp_path, clock).counters
    assert isinstance(counter, Rapl)


# NVML


class NvmlError(Exception):
    pass


def nvml(clock, *, broken=None):
    """Two GPUs, of which one is too old to count energy."""

    def init():
        if broken:
            raise NvmlError(broken)

    def total(handle):
        if handle == 1:
            raise NvmlError("Not Supported")
        return int(clock.used * 1000)

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: ["New", "Old"][handle],
        nvmlDeviceGetTotalEnergyConsumption=total,
    )


def test_a_gpu_that_counts_is_found_beside_one_that_does_not(tmp_path, monkeypatch):
    clock = Clock(watts=64.0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(clock))
    found = survey(tmp_path, clock)
    (counter,) = found.counters
    assert (counter.method, counter.covers) == ("NVML total energy, GPU 0 (New)", "gpu")
    assert "NVML total energy, GPU 1 (Old): Not Supported" in found.reasons
    energy = measured([128.0] * 3, counter=counter, clock=clock, idle_seconds=2.0)
    assert energy.millijoules_per_image == pytest.approx(1000 * 64 * PAUSE / 4, rel=1e-3)


def test_without_driver_or_package_the_reason_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(Clock(), broken="Driver Not Loaded"))
    assert "NVML: Driver Not Loaded" in survey(tmp_path).reasons
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (reason,) = [line for line in survey(tmp_path).reasons if line.startswith("NVML")]
    assert 'pip install "espnetv2[energy]"' in reason


# Jetson


class ZeusJetsonInitError(Exception):
    pass


class Rails:
    """As zeus does: an answer holds the sample before the question, then comes a new sample."""

    def __init__(self, clock, *known):
        self.clock, self.known, self.sample = clock, known, 0.0

    def get_available_metrics(self):
        self.get_total_energy_consumption()
        return set(self.known)

    def get_total_energy_consumption(self):
        answer, self.sample = self.sample, self.clock.used * 1000
        return SimpleNamespace(**dict.fromkeys(self.known, answer))


def jetson(root, monkeypatch, make):
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "nv_tegra_release").touch()
    soc = SimpleNamespace(Jetson=make, ZeusJetsonInitError=ZeusJetsonInitError)
    monkeypatch.setitem(sys.modules, "zeus", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "zeus.device.soc.jetson", soc)


ALL = ("cpu_energy_mj", "gpu_energy_mj", "total_energy_mj")


@pytest.mark.parametrize(
    ("known", "name", "times"), [(ALL, "total", 1), (ALL[:2], "cpu + gpu", 2), (ALL[:1], "cpu", 1)]
)
def test_rails_are_those_of_the_board_or_else_cpu_and_gpu(
    tmp_path, monkeypatch, known, name, times
):
    clock = Clock()
    jetson(tmp_path, monkeypatch, lambda: Rails(clock, *known))
    (counter,) = survey(tmp_path, clock).counters
    assert counter.method == f"Jetson rails through zeus, {name}"
    before = counter.joules()
    clock.sleep(1.0)
    assert counter.joules() - before == pytest.approx(8 * times)


def test_rails_are_measured_to_the_newest_sample():
    clock = Clock()
    counter = JetsonRails(Rails(clock, *ALL))
    energy = measured([40.0], calls=16, counter=counter, clock=clock, idle_seconds=1)
    assert energy.millijoules_per_image == pytest.approx(1000 * 32 * PAUSE / 4)
    assert (energy.rate, energy.rate_measured, energy.covers) == (10.0, False, "board")


def refuse():
    raise ZeusJetsonInitError("no processor")


class Mute(Rails):
    def get_total_energy_consumption(self):
        raise queue.Empty


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (refuse, "Jetson rails: no processor"),
        (lambda: Rails(Clock()), "Jetson rails: zeus finds no power rail that it knows"),
        (lambda: Mute(Clock()), "Jetson rails: zeus does not answer"),
    ],
)
def test_rails_that_fail_are_reasons(tmp_path, monkeypatch, make, words):
    jetson(tmp_path, monkeypatch, make)
    found = survey(tmp_path, Clock())
    assert found.counters == []
    assert words in found.reasons


def test_a_jetson_without_zeus_is_told_what_to_install(tmp_path, monkeypatch):
    jetson(tmp_path, monkeypatch, None)
    monkeypatch.setitem(sys.modules, "zeus", None)
    reason = survey(tmp_path).reasons[-1]
    assert reason.startswith("Jetson rails: this needs the package 'zeus'")


def test_other_machines_never_import_zeus(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    assert survey(tmp_path).reasons[-1] == "Jetson rails: this machine is no Jetson"


# this machine


def test_each_kind_here_is_a_counter_or_a_reason():
    found = survey()
    assert len(found.counters) + len(found.reasons) >= 3
    assert all(line and "\n" not in line for line in found.reasons)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_uses_more_for_more_work():
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    counters = [counter for counter in find_counters() if isinstance(counter, NvmlTotal)]
    if not counters:
        pytest.skip(f"no GPU counts energy here: {survey().reasons}")
    matrix = torch.randn(4096, 4096, device="cuda")

    def work(products):
        def run():
            for _ in range(products):
                matrix @ matrix
            torch.cuda.synchronize()

        run()
        return run

    few, many = (
        measure(work(products), counter=counters[0], images=1, seconds=3.0) for products in (10, 40)
    )
    assert few.load_watts > few.idle_watts > 1
    assert few.rate > 1
    assert 2 < many.millijoules_per_image / few.millijoules_per_image < 8
