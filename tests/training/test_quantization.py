"""Fine-tuning for int8: rounds as the deploy form will, leaves plain weights, resumes exactly."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, interpolate

import tiny_sets
from deploy.lively import lively
from espnetv2.data.evaluation_sets import open_split
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.fold import fold
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import pictures_in
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.training import fit
from espnetv2.training.quantization import Range, Rounding, spots
from espnetv2.training.recipe import load_recipe, parse
from espnetv2.training.trainer import Run
from espnetv2.weights.files import Header, write_safetensors
from espnetv2.weights.load import load_network

TINY = {
    "task": "classification",
    "model": "espnetv2_s0_5",
    "data": {"size": [32, 32], "batch_size": 4, "workers": 0, "augment": "imagenet-light"},
    "optimizer": {"name": "adam", "weight_decay": 0.0},
    "schedule": {"name": "cosine", "rate": 0.003},
    "quantize": {"to": "int8"},
    "epochs": 2,
}


def recipe(**changes):
    return parse({**TINY, **changes}, source="test")


def run_of(data, out, **more):
    return Run(data=data, out=out, device="cpu", progress=False, **more)


def stepped(x, dims, *, signed):
    """Rounded to 256 values by plain arithmetic, with one step for what `dims` spans."""
    if signed:
        step = x.abs().amax(dims, keepdim=True) / 127
        return (x / step).round() * step
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = (high - low) / 255
    zero = (-low / step).round()
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def in_int8(network):
    """What a runtime computes: every layer of the deploy form with its input, weight and output
    rounded; a tensor's range is its own."""
    folded = fold(network)
    for spot in spots(network):
        layer = folded.get_submodule(spot.layer)
        layer.weight.data = stepped(layer.weight.data, [*range(1, layer.weight.dim())], signed=True)
        layer.register_forward_pre_hook(lambda _, given: (stepped(given[0], None, signed=False),))
        layer.register_forward_hook(lambda *all_: stepped(all_[-1], None, signed=False))
    return folded


def outputs_of(network, names, x):
    """What the modules of these names give."""
    found = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda *all_, name=name: found.__setitem__(name, all_[-1])
        )
        for name in names
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def error(found, truth):
    return float((found - truth).square().mean().sqrt() / truth.square().mean().sqrt())


@pytest.mark.parametrize("name", ["espnetv2_s0_5", "shufflenetv1_g3_x0_5", "espnet_c_p2_q3"])
def test_the_train_form_rounds_as_the_deploy_form(name):
    torch.manual_seed(5)
    network = lively(entry(name).build()).eval()
    x = torch.randn(2, 3, 64, 64)
    rounding = Rounding(network, momentum=1.0)
    plain = [spot for spot in rounding.spots if spot.branch is None]
    plain = plain[: len(plain) // 2]  # further on a value in the middle of two steps has spread
    layers, gives = [spot.layer for spot in plain], [spot.gives for spot in plain]
    with torch.no_grad():
        truth, before = outputs_of(fold(network), layers, x), network(x)
        expected = outputs_of(in_int8(network), layers, x)
        with rounding.around(network, watch=True):
            found = outputs_of(network, gives, x)
        assert torch.equal(network(x), before)  # outside of `around` it is as before
    for spot, right, close, exact in zip(plain, expected, found, truth, strict=True):
        assert error(right, exact) > 0.001, spot
        assert error(close, right) < 0.1 * error(right, exact), spot


def test_the_norm_of_a_unit_decides_on_which_scale_its_expansion_is_rounded():
    """Without that the rounding is another one, by far."""
    torch.manual_seed(5)
    network = lively(entry("espnetv2_s0_5").build()).eval()
    rounding = Rounding(network, momentum=1.0)
    kinds = {(spot.branch, spot.unit is None) for spot in rounding.spots}
    assert kinds == {(None, True), (None, False), (0, False), (1, False), (2, False), (3, False)}
    unit = network.backbone.stages[1].units[0]
    with torch.no_grad():
        before = unit.merge.conv.weight.clone()
        with rounding.around(network, watch=False):
            columns = unit.merge.conv.weight.clone()
    factor = fold(network).backbone.stages[1].units[0].merge.conv.weight / (
        before
        * (unit.merge.norm.weight / (unit.merge.norm.running_var + 1e-5).sqrt()).view(-1, 1, 1, 1)
    )  # what `fold` has multiplied every column with
    assert torch.allclose(
        columns * factor, stepped(before * factor, (1, 2, 3), signed=True), rtol=1e-3
    )


def test_gradients_pass_and_parameters_stay_what_they_are():
    network = lively(entry("espnetv2_s0_5").build(num_classes=3))
    names = list(network.state_dict())
    parameters = dict(network.named_parameters())
    kept = {name: one.detach().clone() for name, one in parameters.items()}
    rounding = Rounding(network, momentum=1.0)
    network.eval()
    with rounding.around(network, watch=True):
        network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert list(network.state_dict()) == names
    assert [name for name, _ in network.named_parameters()] == list(parameters)
    for name, one in network.named_parameters():
        assert one is parameters[name]
        assert torch.equal(one, kept[name])
        assert one.grad is not None, name
        assert one.grad.abs().sum() > 0, name


def test_a_range_follows_slowly_and_cuts_off():
    spread = Range(0.1)
    spread(torch.tensor([-1.0, 3.0]), watch=True)  # the first is taken as it is
    assert (float(spread.low), float(spread.high)) == (-1.0, 3.0)
    spread(torch.tensor([1.0, 13.0]), watch=True)
    assert float(spread.low) == pytest.approx(-0.9)
    assert float(spread.high) == pytest.approx(4.0)
    x = torch.tensor([-5.0, 0.0, 0.5, 50.0], requires_grad=True)
    rounded = spread(x, watch=False)
    rounded.sum().backward()
    assert rounded.detach().tolist() == pytest.approx([-0.9, 0.0, 0.5, 4.0], abs=0.02)
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 1.0]  # what is cut off can come back
    assert rounded.detach()[1] == 0.0  # padding stays what it is


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A data set of two classes that can be told apart, and weights to start from."""
    place = tmp_path_factory.mktemp("begun")
    data = tiny_sets.imagefolder(place / "data", each=6)
    for path in data.rglob("dog/*.png"):  # noise, as all of them, but in the dark
        Image.open(path).point(lambda value: value // 4).save(path)
    torch.manual_seed(3)
    network = lively(entry("espnetv2_s0_5").build(num_classes=2))
    header = Header(
        model="espnetv2_s0_5",
        options={"num_classes": 2},
        classes=("cat", "dog"),
        palette=None,
        preprocessing=CONVENTIONS["imagenet"].resized((32, 32)).to_json(),
    )
    write_safetensors(network.state_dict(), header, place / "start.safetensors")
    return data, place / "start.safetensors"


@pytest.mark.slow
def test_it_learns_and_leaves_plain_weights(begun, tmp_path):
    data, _ = begun
    start = "espnetv2_s0_5.imagenette"
    spec = recipe(
        weights=start,
        epochs=6,
        data={**TINY["data"], "augment": "none"},
        optimizer={"name": "sgd", "head_factor": 10.0},
        schedule={"name": "cosine", "rate": 0.003},
    )
    fit.train(spec, run_of(data, tmp_path / "run"))
    with (tmp_path / "run" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2
    loaded = load_network(tmp_path / "run" / "model.safetensors")
    before, after = load_network(start).network.state_dict(), loaded.network.state_dict()
    assert list(before) == list(after)
    inner = [key for key in before if key.startswith("backbone.")]
    moved = {key for key in inner if not torch.equal(before[key], after[key])}
    assert not [key for key in moved if "running" in key or "num_batches" in key]
    assert len([key for key in moved if key.endswith("conv.weight")]) > 40
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["state_dict"]
    ranges = [value for key, value in kept.items() if key.endswith(".high")]
    assert len(ranges) == 2 * len(spots(loaded.network))
    assert sum(float(one) > 0 for one in ranges) > len(ranges) / 2  # shared inputs have one range


@pytest.mark.slow
@pytest.mark.parametrize(("place", "steps"), [(8, 200), (9, 1)])
def test_it_resumes_exactly(place, steps, begun, tmp_path, monkeypatch):
    """From the end of the first epoch, and from the middle of the second."""
    data, start = begun
    spec = recipe(weights=str(start), ema=0.9)
    fit.train(spec, run_of(data, tmp_path / "whole"))
    calls = []
    around = Rounding.around

    def fall(self, network, *, watch):
        calls.append(watch)
        if len(calls) == place:  # of three steps and three validation batches an epoch
            raise ZeroDivisionError
        return around(self, network, watch=watch)

    monkeypatch.setattr(Rounding, "around", fall)
    with pytest.raises(ZeroDivisionError):
        fit.train(spec, run_of(data, tmp_path / "broken", checkpoint_steps=steps))
    fit.train(spec, run_of(data, tmp_path / "broken", checkpoint_steps=steps, resume=True))
    first, second = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("whole", "broken")
    )
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")
    )
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_ranges_rest_in_the_last_epochs(begun, tmp_path, monkeypatch):
    data, start = begun
    calls = []
    around = Rounding.around

    def note(self, network, *, watch):
        calls.append((network.training, watch))
        return around(self, network, watch=watch)

    monkeypatch.setattr(Rounding, "around", note)
    spec = recipe(weights=str(start), quantize={"to": "int8", "watch": 0.5})
    fit.train(spec, run_of(data, tmp_path / "run", limit=1))
    assert calls == [(True, True), (False, False), (True, False), (False, False)]


def test_what_does_not_fit_is_one_line(begun, tmp_path):
    data, _ = begun
    with pytest.raises(UserError, match=r"quantize fine-tunes trained weights.* give --weights"):
        fit.train(recipe(), run_of(data, tmp_path / "run"))
    with pytest.raises(UserError, match="language models stay in float"):
        recipe(task="language", model="eru_lm_7m")
    with pytest.raises(UserError, match=r"quantize\.too.*quantize\.to"):
        recipe(quantize={"too": "int8"})


@pytest.mark.slow
@pytest.mark.data
def test_int8_of_a_fine_tuned_network_loses_less(shared, tmp_path):
    """Our CamVid segmenter at a size that it was not made for, where int8 costs a point of mIoU."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    data, size, start = shared / "data" / "camvid", (120, 160), "espnetv2_seg_s0_5.camvid"
    changes = ["stages=[]", f"weights={start}", "quantize.to=int8", f"data.size={list(size)}"]
    changes += ["schedule={name: cosine, rate: 0.0005, final: 0.0}", "ema=null", "epochs=2"]
    changes += ["loss.class_weights=none", "data.workers=0"]
    fit.train(load_recipe("camvid", changes=changes), run_of(data, tmp_path / "run", limit=23))
    lost = {}
    for name, weights in (("before", start), ("after", tmp_path / "run" / "model.safetensors")):
        loaded = load_network(weights)
        spec = loaded.preprocessing.resized(size)
        given = pictures_in(data / "images" / "train", limit=32)
        settings = Settings(precision="int8", size=size, calibration=given)
        export(loaded, "onnx", tmp_path / name, settings)
        engine = open_artefact(tmp_path / name, threads=1)
        samples = open_split("camvid", data, "val", loaded.classes)
        lost[name] = _cost(engine, spec, samples) - _cost(loaded.network, spec, samples)
    assert lost["before"] > 0.02
    assert lost["after"] < lost["before"] / 3


def _cost(network, spec, samples):
    """Mean cross-entropy of every other sample, at the network's size."""
    total = 0.0
    for index in range(0, len(samples), 2):
        sample = samples[index]
        with torch.inference_mode():
            logits = network(spec(sample.image)[None])
        target = torch.from_numpy(np.array(sample.target)).float()[None, None]
        target = interpolate(target, size=logits.shape[-2:], mode="nearest")[:, 0].long()
        total += float(cross_entropy(logits, target, ignore_index=samples.ignore))
    return total / len(range(0, len(samples), 2))
