"""Schedules are those of the official code, epoch by epoch."""

import json

import pytest

from espnetv2.training.schedules import Cosine, Cyclic, Hybrid, PaperCyclic, Poly, Steps

OFFICIAL = {
    "espnetv2_repo_imagenet_300": Cyclic(name="cyclic"),
    "edgenets_clr_min0.1_300": Cyclic(name="cyclic"),
    "edgenets_hybrid_base0.009_clrmax61_100": Hybrid(name="hybrid", minimum=0.009),
    "edgenets_hybrid_base0.005_clrmax61_100": Hybrid(name="hybrid", minimum=0.005),
    "edgenets_hybrid_base0.01_clrmax61_100": Hybrid(name="hybrid", minimum=0.01),
    "edgenets_poly_base0.01_power0.9_100": Poly(name="poly", rate=0.01),
    "paper_eq1_300_decay_at_50_100_130_160_190_220_250_280": PaperCyclic(name="paper-cyclic"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", OFFICIAL)
def test_schedule_equals_the_official_one(name, shared):
    stored = json.loads((shared / "parity" / "lr_schedules.json").read_text())
    assert set(stored) == set(OFFICIAL)
    expected = stored[name]
    ours = [OFFICIAL[name].at(epoch, len(expected)) for epoch in range(len(expected))]
    assert expected == pytest.approx(ours, abs=1e-8)  # the stored list has eight digits


def test_first_epoch_is_a_warm_up_and_steps_come_one_epoch_later_than_in_the_paper():
    """D1."""
    official, paper = Cyclic(name="cyclic"), PaperCyclic(name="paper-cyclic")
    assert (official.at(0, 300), paper.at(0, 300)) == (0.1, 0.5)
    assert (official.at(51, 300), paper.at(50, 300)) == (0.25, 0.25)


def test_rates_are_rounded_as_officially():
    """D10: five digits in the cycle, six in the others."""
    assert Cyclic(name="cyclic").at(191, 300) == 0.01562
    assert Poly(name="poly", rate=0.01).at(4, 100) == 0.009639
    assert Hybrid(name="hybrid", minimum=0.009).at(61, 100) == 0.008775


def test_steps_and_cosine():
    ablation = Steps(name="steps", rate=0.1, steps=(30, 60))
    assert [ablation.at(e, 90) for e in (29, 30, 60)] == pytest.approx([0.1, 0.01, 0.001])
    cosine = Cosine(name="cosine", rate=1.0, warm_up=2, final=0.1)
    assert cosine.at(0, 10) < 0.01
    assert cosine.at(2, 10) == pytest.approx(1.0)
    assert cosine.at(6, 10) == pytest.approx(0.55)
    assert cosine.at(10, 10) == pytest.approx(0.1)
