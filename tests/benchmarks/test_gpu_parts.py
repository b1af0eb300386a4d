"""The parts of `benchmarks/gpu.py` without a GPU: clock, sides, goals, the check."""

import sys
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

import fake_cuda
from close import FLOAT32, assert_close
from espnetv2.layers.eesp import EESP
from espnetv2.profiling.benchmark import network_of
from fake_power import Clock, Counter, measured

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.fixture
def cuda(monkeypatch):
    """Events and memory of a GPU that is not there: a call of the network takes 3 ms."""

    class Event:
        now = 0.0

        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.at = Event.now

        def elapsed_time(self, other):
            return other.at - self.at

    memory = {"now": 1000, "most": 1000}
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: memory["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: memory["most"])
    reset = lambda: memory.update(most=memory["now"])  # noqa: E731
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)

    def call():
        Event.now += 3.0
        memory["most"] = max(memory["most"], memory["now"] + 500)

    return call, memory


# clock


def test_events_time_a_burst(cuda):
    call, _ = cuda
    assert import_module("gpu_clock").elapsed(call, 4, GPU) == pytest.approx(0.012)


def test_the_peak_is_what_a_call_and_its_side_hold(cuda):
    call, memory = cuda
    clock = import_module("gpu_clock")
    before = clock.held(GPU)
    memory["now"] += 70  # the side was built
    assert clock.peak(call, before, GPU) == 570
    assert clock.peak(call, before, CPU) is None
    assert clock.held(CPU) == 0


def test_sides_take_turns_both_ways():
    order = []

    def call(name):
        order.append(name)
        time.sleep(0.035)  # longer than a burst, so that a turn is one call

    calls = {name: partial(call, name) for name in "ab"}
    found = import_module("gpu_clock").interleave(calls, device=CPU, seconds=0, rounds=4)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"  # the first two find the burst
    assert found["a"]["rounds"] == found["b"]["rounds"] == 4
    assert 35 <= found["a"]["ms_p10"] <= found["a"]["ms"] <= found["a"]["ms_p90"]


def test_a_recorded_call_is_replayed_not_called(monkeypatch):
    graphs = fake_cuda.install(monkeypatch)
    x, y, calls = torch.ones(3), torch.zeros(3), []

    def call():
        calls.append(None)
        torch.add(x, 1, out=y)

    replay = import_module("gpu_clock").recorded(call, GPU)
    warm = len(calls)
    x.fill_(5)
    replay()
    assert (len(calls), len(graphs)) == (warm, 1)
    assert y.tolist() == [6, 6, 6]


# sides


def test_the_official_sequence_gives_our_logits_and_gradients():
    network = network_of("espnetv2_s0_5").network.eval()
    images = torch.randn(2, 3, 64, 64)
    official = import_module("official_sequence").OfficialSequence(network)
    assert_close("logits", official(images), network(images), FLOAT32)


def test_every_unit_of_the_network_is_in_the_operators_share():
    sides, operators = import_module("gpu_sides"), import_module("gpu_operators")
    side = sides.Side("", "espnetv2_s0_5", batch=8, size=(64, 64))
    found = operators.reduced_maps(side)
    units = [one for one in network_of("espnetv2_s0_5").network.modules() if isinstance(one, EESP)]
    assert sum(found.values()) == len(units)
    assert {stride for _, _, stride in found} == {1, 2}
    assert all(shape[0] == 8 and len(dilations) == 4 for shape, dilations, _ in found)
    assert sum(operators.pointwise_maps(side).values()) == 2 * len(units)


def test_the_operators_bytes_are_counted_once(monkeypatch):
    operators = import_module("gpu_operators")
    plan = import_module("gpu_parts").Plan(CPU, True, 0.0)
    found = operators.timed_pyramid((2, 3, 5, 7), (1, 1, 2, 3), 2, plan)
    x, y = 4 * 2 * 3 * 5 * 7, 4 * 2 * 12 * 3 * 4
    assert found["forward_bytes"] == x + y
    assert found["backward_bytes"] == x + x + y
    assert found["forward_ms"] > 0
    found = operators.timed_pointwise((2, 3, 5, 7), 6, 3, plan)
    assert (found["forward_bytes"], found["backward_bytes"]) == (3 * x, 6 * x)
    assert found["torch_backward_ms"] > 0
    found = operators.timed_norm((2, 3, 5, 7), plan)
    assert (found["forward_bytes"], found["backward_bytes"]) == (4 * x, 7 * x)
    assert found["backward_ms"] > 0


@pytest.fixture
def plan():
    return import_module("gpu_parts").Plan(CPU, True, 0.0)


@pytest.fixture
def passing():
    return import_module("gpu_sides").Side(
        "net", "espnetv2_s0_5", form="deploy", batch=2, size=(32, 32)
    )


def test_a_pictures_energy_is_that_of_a_burst_of_calls(monkeypatch, plan, passing):
    parts, clock = import_module("gpu_parts"), Clock()
    found = SimpleNamespace(counters=[Counter(clock)], reasons=[])
    found.counters[0].covers = "gpu"
    asked = []

    def spent(run, *, counter, images, seconds, idle_seconds):
        run()
        asked.append((counter, images % 2))
        return measured(powers=(40.0,), images=images, counter=counter, clock=clock)

    monkeypatch.setattr(parts, "survey", lambda: found)
    monkeypatch.setattr(parts, "measure", spent)
    deadline = import_module("gpu_clock").Deadline
    energy = parts.energy([passing], plan, deadline(3600))["net"]
    assert energy["load_watts"] == pytest.approx(40)
    assert energy["macs"] == parts.macs_of(passing)
    assert asked == [(found.counters[0], 0)]
    assert parts.energy([passing], plan, deadline(0))["net"] == "not measured (no time left)"
    found.counters.clear()
    found.reasons.append("NVML: none")
    assert parts.energy([passing], plan, deadline(3600))["net"] == "not available (NVML: none)"


def test_a_profiler_that_minds_graphs_is_asked_without(monkeypatch, plan, passing):
    parts, asked = import_module("gpu_parts"), []

    def counted(worker, case, row, *, patience):
        asked.append((case.engine, case.precision, case.batch, case.size, row["ms_median"] > 0))
        worker.run(2)
        failed = "not available (ncu: graph)" if case.engine == "cudagraph" else {"kernels": 7}
        return {"gpu_load": {"utilisation": 50.0}, "gpu_kernels": failed}

    monkeypatch.setattr(parts, "counted", counted)
    found = parts.edge_metrics([passing], plan, import_module("gpu_clock").Deadline(3600))["net"]
    assert asked == [(name, "bf16", 2, (32, 32), True) for name in ("cudagraph", "torch")]
    assert (found["engine"], found["gpu_kernels"]) == ("torch", {"kernels": 7})
    late = parts.edge_metrics([passing], plan, import_module("gpu_clock").Deadline(5))
    assert late == {"net": "not measured (no time left)"}


def test_a_side_that_fails_leaves_the_others_their_time(monkeypatch, passing):
    parts = import_module("gpu_parts")
    plan = parts.Plan(CPU, True, 0.0, unchecked="no kernels")
    other = replace(passing, name="fused", kernels="fused")
    broken = replace(passing, name="broken", model="espnetv2_s0_6")
    found = parts.compare([broken, other, passing], plan, import_module("gpu_clock").Deadline(3600))
    assert found["broken"].startswith("not measured (")
    assert found["fused"] == "not measured (no kernels)"
    assert found["net"]["images_per_second"] == pytest.approx(2000 / found["net"]["ms"])


# goals


def side(rate, memory=None):
    return {"images_per_second": rate, "peak_bytes": memory}


def test_goals_are_held_missed_or_not_measured():
    plan = import_module("gpu_plan")
    more = plan.Goal("t", "part", ("fused", "fused, compiled"), "official", 3.0)
    less = plan.Goal("t", "part", ("fused",), "official", 0.7, "peak_bytes", most=True)
    shown = plan.Goal("t", "part", ("fused",), "official", None)
    found = {"part": {"fused": side(20.0, 60), "official": side(10.0, 100)}}
    assert plan.judged(more, found)[1:] == (
        *("fused: 20", "official: 10", "2.00", ">= 3", "missed"),
    )
    found["part"]["fused, compiled"] = side(31.0)
    assert plan.judged(more, found)[1:] == (
        *("fused, compiled: 31", "official: 10", "3.10", ">= 3", "held"),
    )
    assert plan.judged(less, found)[3:] == ("0.60", "<= 0.7", "held")
    assert plan.judged(shown, found)[3:] == ("2.00", "reported", "")
    found["part"]["official"] = "not measured (no)"
    assert plan.judged(more, found)[2:] == ("official: -", "", ">= 3", "not measured")
    assert plan.judged(less, {"part": "not measured (no)"})[5] == "not measured"


def test_the_operators_stand_beside_the_copy():
    plan = import_module("gpu_plan")
    found = {"copy": {"bytes_per_second": 4e12}}
    assert [line[5] for line in plan.operator_lines(found)] == ["not measured"] * 6
    found["pyramid"] = {"bytes_per_second": {"forward": 3e12, "backward": 2e12}}
    assert [line[3:] for line in plan.operator_lines(found)[:2]] == [
        ("0.75", ">= 0.7", "held"),
        ("0.50", ">= 0.7", "missed"),
    ]
    found["norms"] = {"bytes_per_second": {"forward": 3.2e12, "backward": 3.2e12}}
    assert [line[3] for line in plan.operator_lines(found)[2:4]] == ["0.80", "0.80"]
    rates = {"forward": 3e12, "backward": 2e12}
    found["pointwise"] = {"bytes_per_second": rates, "torch_bytes_per_second": rates}
    assert [line[3:] for line in plan.operator_lines(found)[4:]] == [("1.00", "reported", "")] * 2


def test_every_goal_names_sides_that_are_timed():
    plan = import_module("gpu_plan")
    for goal in plan.GOALS:
        names = [one.name for one in plan.COMPARISONS[goal.part]]
        assert {*goal.ours, goal.theirs} <= set(names), goal
        assert len(names) == len(set(names))


# compiling ahead


def test_processes_run_side_by_side_and_say_how_they_ended(tmp_path):
    meet = (
        "import pathlib, sys, time\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "(here / sys.argv[1]).touch()\n"
        "while not all((here / name).exists() for name in 'ab'): time.sleep(0.01)\n"
    )
    python = [sys.executable, "-c"]
    commands = {name: [*python, meet, name] for name in "ab"}
    commands["wrong"] = [*python, "raise SystemExit(3)"]
    ahead, clock = import_module("gpu_ahead"), import_module("gpu_clock")
    found = ahead.side_by_side(commands, jobs=2, deadline=clock.Deadline(3600))
    assert found == {"a": "done", "b": "done", "wrong": "ended with code 3"}


def test_processes_that_outlast_the_deadline_are_stopped():
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    ahead, clock = import_module("gpu_ahead"), import_module("gpu_clock")
    start = time.monotonic()
    found = ahead.side_by_side({"a": sleep, "b": sleep}, jobs=1, deadline=clock.Deadline(0.3))
    assert found == {"a": "stopped", "b": "not begun"}
    assert time.monotonic() - start < 30


def test_what_compiles_is_ahead_of_the_parts_that_are_asked_for():
    ahead = import_module("gpu_ahead")
    names = ahead.names_ahead(["train s = 1.0"])
    assert names[: ahead.CHECKS + 1] == [*(f"check/{i}" for i in range(ahead.CHECKS)), "network"]
    assert names[ahead.CHECKS + 1 :] == [
        f"train s = 1.0/{name}"
        for name in ("fused", "fused, graph", "plain, compiled", "fused, compiled")
    ]
    assert len(ahead.names_ahead([])) == ahead.CHECKS + 1 + len(ahead.sides_ahead())


def test_shares_of_the_check_are_all_of_it():
    check = import_module("gpu_check")
    whole = check.cases(few=False)
    assert sorted(map(str, whole)) == sorted(
        str(one) for number in range(6) for one in whole[number::6]
    )
    for place, kinds in enumerate((check.SIZES, (1, 2), check.DILATIONS, check.FORMATS)):
        for kind in kinds:  # every kind of case, in every type
            assert {one[4] for one in whole if one[place] == kind} == set(check.BOUNDS)
    for place, kinds in enumerate((check.NORM_SIZES, check.GROUPS, check.FORMATS)):
        for kind in kinds:
            found = {one[3] for one in check.pointwise_cases(few=False) if one[place] == kind}
            assert found == set(check.BOUNDS)
    norms = check.norm_cases(few=False)
    for place, kinds in enumerate((check.NORM_SIZES, (True, False), (True, False), check.FORMATS)):
        for kind in kinds:
            assert {one[4] for one in norms if one[place] == kind} == set(check.BOUNDS)


def test_what_nobody_writes_is_found():
    check = import_module("gpu_check")
    with check.poisoned():
        empty = torch.empty(3)
        assert not torch.backends.cudnn.allow_tf32
    assert torch.isnan(empty).all()
    assert check.apart(empty, torch.ones(3)) == float("inf")
    assert check.apart(torch.full((3,), 1.1), torch.ones(3)) == pytest.approx(0.1, rel=1e-5)
    assert not torch.are_deterministic_algorithms_enabled()
