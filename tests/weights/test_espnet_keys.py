"""The table of names is a bijection, and with it the released networks answer as officially."""

import re

import numpy as np
import pytest
import torch

from close import LOGITS, assert_within
from espnetv2.models.espnet import ESPNet, ESPNetC
from espnetv2.weights.espnet_keys import DECODER_PATTERNS, ENCODER_PATTERNS, PATTERNS

pytestmark = pytest.mark.data

NETWORKS = {
    "encoder_p2_q3": lambda: ESPNetC(q=3),
    "encoder_p2_q5": lambda: ESPNetC(q=5),
    "encoder_p2_q8": lambda: ESPNetC(q=8),
    "decoder_p2_q3": lambda: ESPNet(q=3),
    "decoder_p2_q5": lambda: ESPNet(q=5),
    "decoder_p2_q8": lambda: ESPNet(q=8),
    "decoder_p2_q8_camvid": lambda: ESPNet(q=8, num_classes=12, skip="stem+image"),
}
ENCODER_STAGES = {
    "level1": "backbone.stem",
    "b1": "backbone.norm1",
    "level2_0": "backbone.down2",
    "level2": "backbone.level2",
    "b2": "backbone.norm2",
    "level3_0": "backbone.down3",
    "level3": "backbone.level3",
    "b3": "backbone.norm3",
}
DECODER_STAGES = {
    **{f"enc_{official}": f"encoder.{ours}" for official, ours in ENCODER_STAGES.items()},
    "enc_classifier": "encoder.classify",
    "up_l3": "double3",
    "level3_C": "project2",
    "combine": "merge2",
    "up_l2": "norm1",
    "conv": "merge1",
}


def translate(key):
    """Our name for an official one; exactly one pattern fits."""
    module, _, leaf = key.rpartition(".")
    hits = []
    for official, ours in PATTERNS:
        match = re.fullmatch(re.escape(official).replace(r"\{i\}", r"(\d+)"), module)
        if match:
            hits.append(ours.replace("{i}", match[1]) if match.groups() else ours)
    assert len(hits) == 1, f"{key}: {hits}"
    return f"{hits[0]}.{leaf}"


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_correspond_one_to_one(shared, name):
    listed = (shared / f"facts/keys/espnetv1_{name}.tsv").read_text().splitlines()
    official = dict(line.split("\t")[:2] for line in listed)
    translated = {
        translate(key): tuple(map(int, size.split("x"))) for key, size in official.items()
    }
    ours = {
        key: tuple(value.shape)
        for key, value in NETWORKS[name]().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert len(translated) == len(official)
    assert translated == ours


def test_no_pattern_is_idle(shared):
    used = set()
    for name in NETWORKS:
        for line in (shared / f"facts/keys/espnetv1_{name}.tsv").read_text().splitlines():
            module = line.split("\t")[0].rpartition(".")[0]
            used.add(re.sub(r"(level[23])\.\d+", r"\1.{i}", module))
    assert used == {official for official, _ in PATTERNS}
    assert len(PATTERNS) == len(ENCODER_PATTERNS) + len(DECODER_PATTERNS) == len(dict(PATTERNS))


@pytest.mark.parametrize(
    "name", ["encoder_p_2_q_3", "encoder_p_2_q_8", "decoder_p_2_q_3", "decoder_p_2_q_8"]
)
def test_released_cityscapes_networks_answer_as_officially(shared, name):
    _compare(shared, name)


def test_released_camvid_network_answers_as_officially(shared):
    _compare(shared, "decoder_p_2_q_8_camvid")


def _compare(shared, name):
    folder, _, size = name.partition("_")
    network = NETWORKS[name.replace("p_2_q_", "p2_q")]()
    path = shared / f"weights/espnet/{folder}/espnet_{size}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    batches = {k: v for k, v in network.state_dict().items() if k.endswith("num_batches_tracked")}
    network.load_state_dict(batches | {translate(key): value for key, value in state.items()})

    expected = np.load(shared / f"parity/espnetv1_{name}.npz")
    stages, logits = _run(network, torch.from_numpy(expected["input"]), folder)

    names = [n[6:-7] for n in expected.files if n.startswith("stage_") and n.endswith("_sample")]
    assert len(names) >= 8
    for stage in names:
        sample = stages[stage][0, :8, :: _step(stages[stage]), :: _step(stages[stage])]
        assert_within(stage, sample, expected[f"stage_{stage}_sample"], LOGITS)
    if "logits" in expected:
        assert_within("logits", logits, expected["logits"], LOGITS)
    else:
        assert_within("logits", logits[:, :, ::4, ::4], expected["logits_s4"], LOGITS)
        _same_labels(logits[0], expected["argmax"])


def _same_labels(logits, expected):
    """Equal wherever the best two classes lie apart; threads alone turn one tie in 32768 pixels."""
    best, second = logits.topk(2, dim=0).values
    differing = logits.argmax(dim=0).numpy() != expected
    assert differing.mean() <= 1e-4
    assert not (differing & (best - second > LOGITS).numpy()).any()


def _run(network, image, folder):
    stages = {}
    for stage, module in (ENCODER_STAGES if folder == "encoder" else DECODER_STAGES).items():
        network.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, out, stage=stage: stages.update({stage: out})
        )
    with torch.inference_mode():
        return stages, network.eval()(image)


def _step(maps):
    return max(1, maps.shape[-1] // 16)
