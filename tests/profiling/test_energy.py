"""Energy: exact with a counter and a clock of our own, real where a GPU is at hand."""

import json

import pytest
import torch

from espnetv2.errors import UserError
from espnetv2.profiling.counters import NvmlTotal, survey
from espnetv2.profiling.energy import describe, find_counters, measure
from fake_power import PAUSE, Clock, Counter, measured


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
    energy = measured(counter=Counter(clock, None, tick=0.05), clock=clock, idle_seconds=1)
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
