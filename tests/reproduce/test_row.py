"""Rows: when a printed number comes back, and what the gap says when it does not."""

import pytest

from espnetv2.reproduce.report import Report, markdown, summary, text
from espnetv2.reproduce.row import Row, parse


@pytest.mark.parametrize(
    ("paper", "ours", "gap"),
    [
        ("1.24 M", 1_241_332, "equal"),
        ("1.24 M", 1_251_000, "+0.01 M (+0.9%)"),
        ("284 M", 284_806_228, "equal, cut"),
        ("285 M", 284_806_228, "equal"),
        ("286 M", 284_806_228, "-1.19 M (-0.4%)"),
        ("55.64", 55.6494, "+0.01"),
        ("68.30", 68.3032, "equal"),
        ("about 70.6", 70.57, "equal"),
        ("9", 9, "equal"),
        ("112, 56", "112, 56", "equal"),
        ("112, 56", "112, 55", "differs"),
        ("", 3.0, ""),
        ("3", None, ""),
    ],
)
def test_gap_is_equal_only_to_the_last_printed_digit(paper, ours, gap):
    assert Row("", paper, ours, "counted").gap == gap


def test_other_ways_of_counting_are_named_and_rounding_goes_first():
    """s = 2.0: printed as 3.49 M, 3.498 M in full, 3.492 M without idle parameters."""
    row = Row("", "3.49 M", 3_498_136, "counted", others=(("without idle ones", 3_491_934),))
    assert row.gap == "equal, without idle ones"


def test_numbers_about_different_things_are_not_compared():
    row = Row("", "63.36", 57.13, "official weights on real data", comparable=False)
    assert row.gap == "not comparable"


@pytest.mark.parametrize(
    ("ours", "unit", "shown"),
    [(1_241_332, "", "1,241,332"), (83.49044, "", "83.49"), (0.0, "%", "0 %"), (9, "px", "9 px")],
)
def test_values_are_shown_in_full_where_they_are_counts(ours, unit, shown):
    assert Row("", "", ours, "counted", unit=unit).shown == shown


def test_what_is_no_number_is_not_parsed():
    assert parse("2.2-2.9") is None


def test_a_report_tells_how_each_value_came_to_be():
    report = Report(
        "demo",
        "Demo",
        "espnetv2 Table 9",
        (
            Row("a", "1.0", 1.0, "trained here at small scale", "results/run.json#metrics/x"),
            Row("b", "2.0", None, "needs data", "ImageNet: espnetv2 train imagenet", note="why"),
        ),
        ("A remark.",),
    ).to_json()
    plain, page = text(report), markdown(report, up="../")
    assert "trained here at small scale (results/run.json#metrics/x)" in plain
    assert "needs ImageNet: espnetv2 train imagenet; why" in plain
    assert "[results/run.json](../results/run.json)" in page
    assert "needs ImageNet: `espnetv2 train imagenet`; why" in page
    assert plain.endswith("A remark.")
    assert summary([report]) == "2 rows: 1 trained here at small scale, 1 needs data"
