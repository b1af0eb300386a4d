"""Every name builds what it says; counts are those of the papers, to the digit."""

import pytest

from espnetv2.errors import UserError
from espnetv2.models.catalog import CATALOG, counts, entry, list_models
from espnetv2.profiling.complexity import measure_by_name
from espnetv2.weights.published import PUBLISHED

# Parameters in the official layout and convolution MACs at the entry's own size; counted on the
# official networks (fact sheets), ShuffleNet v1 on an independent implementation.
OFFICIAL = {
    "espnetv2_s0_5": (1_241_332, 28_375_508),
    "espnetv2_s1_0": (1_670_072, 85_720_404),
    "espnetv2_s1_25": (1_965_440, 123_399_444),
    "espnetv2_s1_5": (2_314_856, 168_604_884),
    "espnetv2_s1_75": (3_032_432, 224_146_580),
    "espnetv2_s2_0": (3_498_136, 284_806_228),
    "espnetv2_s1_0_no_shortcut": (1_664_912, 84_333_312),
    "espnetv2_s1_0_plain_reduction": (1_929_080, 126_664_020),
    "espnetv2_s0_5_plain_reduction": (1_306_084, 38_611_412),
    "espnetv2_seg_arxiv_s0_5": (99_418, 54_011_284),
    "espnetv2_seg_arxiv_s1_0": (340_782, 161_628_372),
    "espnetv2_seg_arxiv_s1_5": (725_166, 321_679_380),
    "espnetv2_seg_arxiv_s2_0": (1_253_038, 542_744_404),
    "shufflenetv1_g1_x1_0": (1_531_936, 142_502_976),
    "shufflenetv1_g2_x1_0": (1_733_848, 140_036_512),
    "shufflenetv1_g3_x1_0": (1_865_728, 136_500_672),
    "shufflenetv1_g4_x1_0": (1_968_344, 133_251_776),
    "shufflenetv1_g8_x1_0": (2_434_768, 136_829_952),
    "shufflenetv1_g1_x0_5": (534_484, 38_229_408),
    "shufflenetv1_g3_x0_5": (718_324, 37_109_856),
    "shufflenetv1_g1_x0_25": (209_746, 10_859_184),
    "shufflenetv1_g3_x0_25": (305_902, 10_769_808),
}

# The same where the sheets round MACs to 0.001 or 0.01 million.
ROUNDED = {
    "espnetv2_seg_s0_5.edgenets_voc_256": (80_353, 74.704),
    "espnetv2_seg_s0_5.edgenets_voc_384": (80_353, 168.071),
    "espnetv2_seg_s0_5.edgenets_city_512": (80_342, 149.070),
    "espnetv2_seg_s0_5.edgenets_city_1024": (80_342, 596.248),
    "espnetv2_seg_s1_0.edgenets_voc_256": (234_021, 135.839),
    "espnetv2_seg_s1_0.edgenets_voc_384": (234_021, 305.617),
    "espnetv2_seg_s1_0.edgenets_city_512": (234_010, 271.333),
    "espnetv2_seg_s1_0.edgenets_city_1024": (234_010, 1085.284),
    "espnetv2_seg_s1_5.edgenets_voc_256": (468_373, 214.340),
    "espnetv2_seg_s1_5.edgenets_voc_384": (468_373, 482.238),
    "espnetv2_seg_s1_5.edgenets_city_512": (468_362, 428.330),
    "espnetv2_seg_s1_5.edgenets_city_1024": (468_362, 1713.256),
    "espnetv2_seg_s2_0.edgenets_voc_256": (789_253, 337.406),
    "espnetv2_seg_s2_0.edgenets_voc_384": (789_253, 759.129),
    "espnetv2_seg_s2_0.edgenets_city_512": (789_242, 674.457),
    "espnetv2_seg_s2_0.edgenets_city_1024": (789_242, 2697.743),
    "espnetv2_ssd300_s2_0.edgenets_voc": (4_750_878, 913.44),
    "espnetv2_ssd512_s2_0.edgenets_voc": (4_750_878, 2520.07),
    "espnetv2_ssd300_s2_0.edgenets_coco": (5_812_878, 1164.62),
    "espnetv2_ssd512_s2_0.edgenets_coco": (5_812_878, 3217.58),
    "espnet_c_p2_q3": (187_529, 206.66),
    "espnet_c_p2_q5": (252_297, 256.84),
    "espnet_c_p2_q8": (349_449, 332.10),
    "espnet_p2_q3": (202_649, 298.93),
    "espnet_p2_q5": (267_417, 349.10),
    "espnet_p2_q8": (364_569, 424.37),
    "espnet_p2_q8.camvid": (354_517, 1302.7),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_counts_to_the_digit(name):
    row = counts()[name]
    assert OFFICIAL[name] == (row["parameters"], row["macs"])


@pytest.mark.parametrize("name", ROUNDED)
def test_counts_to_the_sheets_rounding(name):
    parameters, millions = ROUNDED[name]
    row = counts()[name]
    digits = len(str(millions).partition(".")[2])
    assert (parameters, millions) == (row["parameters"], round(row["macs"] / 1e6, digits))


@pytest.mark.parametrize("width", ["0_5", "1_0", "1_25", "1_5", "1_75", "2_0"])
def test_idle_parameters_of_the_official_layout(width):
    """D3: as many as the fact sheet counts."""
    idle = {"0_5": 1610, "1_0": 3130, "1_25": 3898, "1_5": 4666, "1_75": 5434, "2_0": 6202}
    row = counts()[f"espnetv2_s{width}"]
    assert idle[width] == row["parameters"] - row["live_parameters"]


def test_transposed_convolutions_are_counted_apart():
    assert counts()["espnet_p2_q8"]["transposed_macs"] == 26_342_400


def test_eru_presets_are_near_seven_and_fifteen_million():
    assert abs(counts()["eru_lm_7m"]["parameters"] - 7e6) < 0.5e6
    assert abs(counts()["eru_lm_15m"]["parameters"] - 15e6) < 0.5e6


def test_every_name_is_counted():
    assert set(counts()) == {*CATALOG, *PUBLISHED}


OURS = [*list_models(), *PUBLISHED]


@pytest.mark.parametrize("name", OURS[:: max(1, len(OURS) // 12)])
def test_stored_counts_are_the_networks_own(name):
    _same_counts(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CATALOG, *PUBLISHED])
def test_all_stored_counts_are_the_networks_own(name):
    _same_counts(name)


def _same_counts(name):
    measured, row = measure_by_name(name), counts()[name]
    assert row == {key: getattr(measured, key) for key in row}


def test_names_are_listed_by_pattern_and_task():
    assert list_models("espnetv2_s?_0") == ["espnetv2_s1_0", "espnetv2_s2_0"]
    assert "mobilenet_v2_x1_0" not in list_models()
    assert "mobilenet_v2_x1_0" in list_models(baselines=True)
    assert list_models(task="language") == ["eru_lm_7m", "eru_lm_15m"]
    assert all("seg" in n or n.startswith("espnet_") for n in list_models(task="segmentation"))


def test_espnet_comes_in_any_depth():
    network = entry("espnet_p3_q4").build(num_classes=5)
    assert len(network.encoder.backbone.level3) == 4


def test_unknown_names_bring_close_ones():
    with pytest.raises(UserError, match="espnetv2_s1_0"):
        entry("espnetv2_s1_O")


def test_catalog_and_layouts_agree():
    from espnetv2.models.espnetv2 import ABLATIONS, LAYOUTS

    names = {n.removeprefix("espnetv2_") for n in CATALOG if n.startswith("espnetv2_s")}
    names = {n for n in names if not n.startswith(("seg", "ssd"))}
    assert names == {*LAYOUTS, *ABLATIONS}
