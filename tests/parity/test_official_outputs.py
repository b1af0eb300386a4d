"""Ours against stored outputs of the official networks, stage by stage."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from close import FLOAT32, LOGITS, SCORES, assert_close, assert_within
from crcfill import crcfill, read_shapes
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.models.catalog import entry
from espnetv2.weights import keys
from espnetv2.weights.load import load_network, load_strictly

pytestmark = pytest.mark.data

ENCODER = {
    "l1": "backbone.stem",
    "l2": "backbone.stages.0.down",
    "l3_0": "backbone.stages.1.down",
    "l3": "backbone.stages.1",
    "l4_0": "backbone.stages.2.down",
    "l4": "backbone.stages.2",
}
EDGENETS_STAGES = {f"enc_{k}": v for k, v in ENCODER.items()} | {
    "dec_l1": "pyramids.0",
    "merge_l2": "skips.0",
    "dec_l2": "pyramids.1",
    "merge_l3": "skips.1",
    "dec_l3": "pyramids.2",
    "merge_l4": "skips.2",
    "dec_l4": "pyramids.3",
}
ARXIV_STAGES = {f"enc_{k}": v for k, v in ENCODER.items()} | {
    "proj_l4": "project_16",
    "eesp": "unit",
    "psp": "pyramid",
    "project_l3": "classify_8",
    "project_l2": "classify_4",
    "project_l1": "classify_2",
}
CLASSIFIER_STAGES = {
    "level1": "backbone.stem",
    "level2_0": "backbone.stages.0.down",
    "level3_0": "backbone.stages.1.down",
    "level3": "backbone.stages.1",
    "level4_0": "backbone.stages.2.down",
    "level4": "backbone.stages.2",
    "level5_0": "backbone.stages.3.down",
    "level5_eesp": "backbone.stages.3",
    "level5_dw": "backbone.final.0",
    "level5_pw": "backbone.final.1",
}


def check_stages(network, stages, reference, image, atol):
    """Run the network and hold every stored stage sample against ours; returns the logits."""
    seen = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.setdefault(name, output)
        )
        for name, path in stages.items()
    ]
    with torch.inference_mode():
        logits = network(image)
    for hook in hooks:
        hook.remove()
    names = {k[6:-7] for k in reference if k.startswith("stage_") and k.endswith("_sample")}
    assert names <= set(stages), f"stages that this test does not know: {names - set(stages)}"
    for name in names:
        step = max(1, seen[name].shape[-1] // 16)
        sample = seen[name][0, :8, ::step, ::step]
        assert_within(f"stage {name}", sample, reference[f"stage_{name}_sample"], atol)
        mean, std, *_ = reference[f"stage_{name}_stats"]
        whole = seen[name].double()
        assert_close(f"{name} stats", [whole.mean(), whole.std(correction=0)], [mean, std], 1e-4)
    return logits


SEGMENTERS = [
    ("espnetv2_s_0.5_city_1024x512", "espnetv2_seg_s0_5.edgenets_city_1024"),
    ("espnetv2_s_1.0_city_1024x512", "espnetv2_seg_s1_0.edgenets_city_1024"),
    ("espnetv2_s_0.5_city_512x256", "espnetv2_seg_s0_5.edgenets_city_512"),
    ("espnetv2_s_1.0_city_512x256", "espnetv2_seg_s1_0.edgenets_city_512"),
    ("espnetv2_s_2.0_city_512x256", "espnetv2_seg_s2_0.edgenets_city_512"),
    ("espnetv2_s_2.0_pascal_256x256", "espnetv2_seg_s2_0.edgenets_voc_256"),
    ("espnetv2_s_0.5_pascal_384x384", "espnetv2_seg_s0_5.edgenets_voc_384"),
    ("espnetv2_s_1.0_pascal_384x384", "espnetv2_seg_s1_0.edgenets_voc_384"),
    ("espnetv2_s_1.0_pascal_256x256", "espnetv2_seg_s1_0.edgenets_voc_256"),
    ("espnetv2_s_0.5_pascal_256x256", "espnetv2_seg_s0_5.edgenets_voc_256"),
    ("espnetv2repo_segmentation_s_0.5", "espnetv2_seg_arxiv_s0_5.espnetv2_city_1024"),
    ("espnetv2repo_segmentation_s_1.0", "espnetv2_seg_arxiv_s1_0.espnetv2_city_1024"),
]


@pytest.mark.parametrize(("stored", "name"), SEGMENTERS)
def test_segmenter_equals_the_official_network(stored, name, shared, monkeypatch):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    reference = np.load(shared / "parity" / f"{stored}.npz")
    loaded = load_network(name)
    stages = ARXIV_STAGES if "arxiv" in name else EDGENETS_STAGES
    image = torch.from_numpy(reference["input"])
    logits = check_stages(loaded.network, stages, reference, image, LOGITS)
    assert_within("logits", logits[:, :, ::4, ::4], reference["logits_s4"], LOGITS)
    np.testing.assert_array_equal(logits[0].argmax(0).numpy(), reference["argmax"])
    pixels = torch.from_numpy(reference["input_rgb_uint8"]).permute(2, 0, 1)
    ours = loaded.preprocessing.normalize(pixels) / loaded.preprocessing.divisor
    if "arxiv" not in name:  # there the crop was made after normalising and resizing
        assert_within("input", ours, reference["input"][0], 1e-6)


def crcfilled(name, key_file, family, shared, **options):
    """A network of the catalog with deterministic weights under official names."""
    shapes = read_shapes(shared / "facts" / "keys" / key_file)
    official = {k: torch.from_numpy(np.asarray(crcfill(k, s))) for k, s in shapes.items()}
    network = entry(name).build(**options)
    load_strictly(network, keys.to_ours(official, family), source=key_file)
    return network


@pytest.mark.parametrize("width", ["0.5", "1.0", "1.5", "2.0"])
def test_classifier_equals_the_official_network(width, shared):
    reference = np.load(shared / "parity" / f"espnetv2_cls_s_{width}_crcfill.npz")
    name = f"espnetv2_s{width.replace('.', '_')}"
    network = crcfilled(name, f"cls_s_{width}.tsv", keys.CLASSIFIER, shared).eval()
    image = torch.from_numpy(reference["input"])
    logits = check_stages(network, CLASSIFIER_STAGES, reference, image, SCORES)
    assert_within("logits", logits, reference["logits"], SCORES)
    with torch.inference_mode():
        odd = network(torch.from_numpy(reference["odd_input"]))
    assert_within("odd size, batch 2", odd, reference["odd_logits"], SCORES)
    pixels = torch.from_numpy(reference["input_rgb_uint8"]).permute(2, 0, 1)
    ours = CONVENTIONS["imagenet"].normalize(pixels)
    assert_within("normalised input", ours, reference["input"][0], 1e-6)


@pytest.mark.parametrize("width", ["0.5", "1.0"])
def test_training_step_equals_the_official_one(width, shared):
    reference = np.load(shared / "parity" / f"espnetv2_cls_s_{width}_crcfill.npz")
    name = f"espnetv2_s{width.replace('.', '_')}"
    network = crcfilled(name, f"cls_s_{width}.tsv", keys.CLASSIFIER, shared).train()
    network.dropout.p = 0.0
    logits = network(torch.from_numpy(reference["train_input"]))
    loss = F.cross_entropy(logits, torch.from_numpy(reference["train_target"]))
    loss.backward()
    assert_within("logits", logits, reference["train_logits"], 1e-4)
    assert_close("loss", loss.detach(), reference["train_loss"], 1e-6)

    gradients = {k: p.grad for k, p in network.named_parameters()}
    assert all(g is not None for g in gradients.values()), "a parameter of ours idles"
    official = keys.to_official(network.state_dict() | gradients, keys.CLASSIFIER)
    norms = dict(zip(reference["train_param_keys"], reference["train_grad_l2"], strict=True))
    dead = {k for k, norm in norms.items() if np.isnan(norm)}
    assert dead == {k for k in norms if k not in official_live_keys(network)}, (
        "the idle parameters of the official network are not those we leave out"
    )
    live = sorted(set(norms) - dead)
    ours = [official[k].double().norm() for k in live]
    assert_close("gradient norms", ours, [norms[k] for k in live], FLOAT32)

    state = keys.to_official(network.state_dict(), keys.CLASSIFIER)
    sums = dict(zip(reference["train_buffer_keys"], reference["train_buffer_sum"], strict=True))
    for key, expected in sums.items():
        if "level5_0.inp_reinf" not in key:
            assert_close(key, state[key].double().sum(), expected, 1e-4)


def official_live_keys(network):
    """Official names of the parameters that our network has."""
    inverse = {}
    for key, value in network.state_dict().items():
        inverse[key] = torch.full_like(value, 7.0)
    marked = keys.to_official(inverse, keys.CLASSIFIER)
    return {k for k, v in marked.items() if v.numel() and (v == 7.0).all()}
