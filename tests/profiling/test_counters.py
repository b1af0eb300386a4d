"""Counters of energy with fake files, a fake NVML and a fake zeus."""

import queue
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from espnetv2.errors import UserError
from espnetv2.profiling.counters import JetsonRails, Rapl, survey
from espnetv2.profiling.energy import describe, measure
from fake_power import PAUSE, Clock, measured


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
