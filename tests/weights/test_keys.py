"""Official names and ours are one-to-one."""

import numpy as np
import pytest
import torch

from crcfill import crcfill, read_shapes
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights import keys
from espnetv2.weights.load import load_strictly

LISTS = {
    "cls_s_0.5.tsv": ("espnetv2_s0_5", keys.CLASSIFIER, {}),
    "cls_s_1.0.tsv": ("espnetv2_s1_0", keys.CLASSIFIER, {}),
    "cls_s_1.25.tsv": ("espnetv2_s1_25", keys.CLASSIFIER, {}),
    "cls_s_1.5.tsv": ("espnetv2_s1_5", keys.CLASSIFIER, {}),
    "cls_s_1.75.tsv": ("espnetv2_s1_75", keys.CLASSIFIER, {}),
    "cls_s_2.0.tsv": ("espnetv2_s2_0", keys.CLASSIFIER, {}),
    "seg_edgenets_s_0.5_city.tsv": (
        "espnetv2_seg_s0_5",
        keys.EDGENETS_SEGMENTER,
        {"num_classes": 20},
    ),
    "seg_edgenets_s_1.0_city.tsv": (
        "espnetv2_seg_s1_0",
        keys.EDGENETS_SEGMENTER,
        {"num_classes": 20},
    ),
    "seg_edgenets_s_1.5_pascal.tsv": ("espnetv2_seg_s1_5", keys.EDGENETS_SEGMENTER, {}),
    "seg_edgenets_s_2.0_pascal.tsv": ("espnetv2_seg_s2_0", keys.EDGENETS_SEGMENTER, {}),
    "seg_espnetv2repo_s_0.5.tsv": ("espnetv2_seg_arxiv_s0_5", keys.ARXIV_SEGMENTER, {}),
    "seg_espnetv2repo_s_1.0.tsv": ("espnetv2_seg_arxiv_s1_0", keys.ARXIV_SEGMENTER, {}),
    "seg_espnetv2repo_s_1.5.tsv": ("espnetv2_seg_arxiv_s1_5", keys.ARXIV_SEGMENTER, {}),
    "det_ssd300_voc_s_2.0.tsv": ("espnetv2_ssd300_s2_0", keys.DETECTOR, {}),
    "det_ssd300_coco_s_2.0.tsv": ("espnetv2_ssd300_s2_0", keys.DETECTOR, {"num_classes": 81}),
    "espnetv1_encoder_p2_q3.tsv": ("espnet_c_p2_q3", keys.ESPNET, {}),
    "espnetv1_encoder_p2_q8.tsv": ("espnet_c_p2_q8", keys.ESPNET, {}),
    "espnetv1_decoder_p2_q3.tsv": ("espnet_p2_q3", keys.ESPNET, {}),
    "espnetv1_decoder_p2_q8.tsv": ("espnet_p2_q8", keys.ESPNET, {}),
    "espnetv1_decoder_p2_q8_camvid.tsv": (
        "espnet_p2_q8",
        keys.ESPNET,
        {"num_classes": 12, "skip": "stem+image"},
    ),
}


@pytest.mark.data
@pytest.mark.parametrize("file", LISTS)
def test_official_names_and_shapes_fit_and_come_back(file, shared):
    name, family, options = LISTS[file]
    shapes = read_shapes(shared / "facts" / "keys" / file)
    official = {k: torch.from_numpy(np.asarray(crcfill(k, s))) for k, s in shapes.items()}
    ours = keys.to_ours(official, family)
    load_strictly(entry(name).build(**options), ours, source=file)
    back = keys.to_official(ours, family)
    plain = keys.strip_data_parallel(official)
    assert set(plain) == set(back)
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in back.items()}
    idle = [k for k in plain if not torch.equal(plain[k], back[k])]
    assert all(".module_act." in k or "level5_0.inp_reinf." in k for k in idle)


def test_a_key_that_does_not_belong_is_named():
    network = entry("espnetv2_seg_arxiv_s0_5").build(num_classes=3)
    official = keys.to_official(network.state_dict(), keys.ARXIV_SEGMENTER)
    official["net.level9.conv.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"net\.level9\.conv\.weight"):
        keys.to_ours(official, keys.ARXIV_SEGMENTER)
    with pytest.raises(UserError, match="extra"):
        keys.to_official({"extra.weight": torch.zeros(1)}, keys.ARXIV_SEGMENTER)


def test_missing_and_misshapen_keys_are_named():
    network = entry("espnetv2_seg_arxiv_s0_5").build(num_classes=3)
    state = network.state_dict()
    del state["unit.act.weight"]
    with pytest.raises(UserError, match=r"lacks 1 keys: unit\.act\.weight"):
        load_strictly(network, state, source="file")
    state = network.state_dict() | {"unit.act.weight": torch.zeros(7)}
    with pytest.raises(UserError, match=r"other shapes in 1 keys: unit\.act\.weight"):
        load_strictly(network, state, source="file")


def test_data_parallel_prefix_is_dropped_only_when_all_keys_have_it():
    assert keys.strip_data_parallel({"module.a": 1, "module.b": 2}) == {"a": 1, "b": 2}
    assert keys.strip_data_parallel({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
