"""CUDA graphs: what is recorded, kept and copied, with a graph of our own; and on a GPU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import fake_cuda
from close import FLOAT32, assert_close
from deploy.lively import lively, parts
from espnetv2.deploy import engine_cudagraph, engine_torch
from espnetv2.deploy.engine_cudagraph import CudaGraphEngine
from espnetv2.deploy.fold import fold
from espnetv2.deploy.opening import fastest, load_engine
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.predict.predictor import load

NAME = "espnetv2_s0_5.imagenette"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def graphs(monkeypatch):
    """Every graph that is made from here on."""
    return fake_cuda.install(monkeypatch)


def network(name="espnetv2_s0_5", **options):
    return fold(lively(entry(name).build(**options)))


def engine(**options):
    return CudaGraphEngine(network(num_classes=10), **options)


@no_gpu
def test_without_a_gpu_one_line_says_so():
    with pytest.raises(
        UserError, match=r"cudagraph needs an NVIDIA GPU .* such as compile"
    ) as told:
        load_engine(NAME, engine="cudagraph")
    assert "\n" not in str(told.value)


def test_it_runs_on_no_other_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="runs on a GPU, not on cpu; give cuda"):
        engine(device="cpu")


@pytest.mark.parametrize(
    ("name", "size"),
    [("espnetv2_s0_5", 64), ("espnetv2_seg_s0_5", 96), ("espnetv2_ssd300_s0_5", 300)],
)
def test_every_replay_gives_the_networks_outputs(graphs, name, size):
    form = network(name)
    replayed = CudaGraphEngine(form)
    for _ in range(3):
        images = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            expected = parts(form(images))
        for one, other in zip(parts(replayed(images)), expected, strict=True):
            assert_close("outputs", one, other, FLOAT32)
    assert [graph.replays for graph in graphs] == [3]


def test_outputs_outlive_the_next_replay(graphs):
    replayed = engine()
    first = replayed(torch.randn(1, 3, 64, 64))
    kept = first.clone()
    replayed(torch.randn(1, 3, 64, 64))
    assert torch.equal(first, kept)


def test_images_stay_as_they_are(graphs):
    images = torch.randn(1, 3, 64, 64)
    replayed, before = engine(), images.clone()
    replayed(images)
    replayed(torch.zeros(1, 3, 64, 64))
    assert torch.equal(images, before)


def test_a_shape_is_recorded_once(graphs):
    replayed = engine()
    for batch, size in [(1, 64), (2, 64), (1, 96), (1, 64), (2, 64)]:
        replayed(torch.randn(batch, 3, size, size))
    assert [graph.replays for graph in graphs] == [2, 2, 1]


def test_the_shape_that_was_used_last_goes_last(graphs, monkeypatch):
    monkeypatch.setattr(engine_cudagraph, "MOST_SHAPES", 2)
    replayed = engine()
    for size in (64, 96, 64, 128, 64, 96):
        replayed(torch.randn(1, 3, size, size))
    assert [graph.replays for graph in graphs] == [3, 1, 1, 1]


def test_the_given_network_keeps_its_precision(graphs):
    given = network(num_classes=10)
    replayed = CudaGraphEngine(given, precision="bf16")
    assert {one.dtype for one in given.parameters()} == {torch.float32}
    images = torch.randn(1, 3, 64, 64)
    found = replayed(images)
    assert found.dtype == torch.float32
    with torch.inference_mode():
        assert_close("logits", found, given(images), 0.03)
        with pytest.raises(AssertionError):
            assert_close("logits", found, given(images), FLOAT32)


def test_arrays_go_through_the_same_graph(graphs):
    replayed = engine()
    images = torch.randn(2, 3, 64, 64)
    (found,) = replayed.run(images.numpy())
    assert torch.equal(torch.from_numpy(found), replayed(images))
    assert len(graphs) == 1


def test_answers_in_whole_numbers_stay_whole(graphs):
    class Map(torch.nn.Module):
        def forward(self, images):
            return images.argmax(1).to(torch.uint8)

    images = torch.randn(1, 3, 8, 8)
    found = CudaGraphEngine(Map(), precision="bf16")(images)
    assert found.dtype == torch.uint8
    assert torch.equal(found, images.bfloat16().argmax(1).to(torch.uint8))


def test_its_network_runs_on_the_kernels_of_its_own_device(monkeypatch):
    """Whatever device was asked for: "cpu" is everybody's default."""
    asked = []
    monkeypatch.setattr(
        engine_torch, "use_kernels_", lambda network, *rest, frozen: asked.append((network, *rest))
    )
    own = torch.nn.Identity()
    on_gpu = SimpleNamespace(network=own, device=torch.device("cuda", 1))
    engine_torch.use_kernels_of(on_gpu, "auto", "cpu")
    engine_torch.use_kernels_of(own, "auto", "cuda")
    engine_torch.use_kernels_of(SimpleNamespace(), "auto", "cpu")  # an engine without a network
    assert asked == [(own, "auto", "cuda:1"), (own, "auto", "cuda")]


def test_a_predictor_takes_it(graphs):
    picture = Image.effect_noise((200, 150), 80).convert("RGB")
    quick, plain = load(NAME, engine="cudagraph"), load(NAME, engine="torch")
    assert quick.model.name == "cudagraph"
    assert_close("scores", quick(picture).scores, plain(picture).scores, FLOAT32)
    assert len(graphs) == 1


def test_a_gpu_takes_it_by_itself_for_one_size(graphs, monkeypatch):
    """Other devices, and networks for any size, keep torch."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    fixed = load_engine(NAME, engine="torch")
    assert fixed.preprocessing.size is not None
    assert fastest(fixed, device="cuda").network.name == "cudagraph"
    assert fastest(fixed, device="mps") is fixed
    free = replace(fixed, preprocessing=fixed.preprocessing.resized(None))
    assert fastest(free, device="cuda") is free
    assert fastest(free, device="cuda", size=(96, 96)).network.name == "cudagraph"


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["espnetv2_s0_5", "espnetv2_seg_s0_5", "espnetv2_ssd300_s0_5"])
def test_on_a_gpu_replays_give_the_networks_outputs(name, precision):
    form = network(name)
    replayed = CudaGraphEngine(form, precision=precision)
    bound = {"fp32": 3e-3, "bf16": 0.05, "fp16": 0.01}[precision]  # fp32: convolutions in TF32
    for size in (300, 224, 300):
        images = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            expected = parts(form(images))
        for one, other in zip(parts(replayed(images)), expected, strict=True):
            assert one.device == images.device
            assert_close("outputs", one, other, bound)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_outputs_stay_there_when_images_are_there():
    replayed = engine()
    images = torch.randn(1, 3, 64, 64)
    found = replayed(images.cuda())
    assert found.is_cuda
    assert_close("logits", found, replayed(images), FLOAT32)
