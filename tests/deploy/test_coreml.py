"""What the .mlpackage says, computed by torch from the saved file; Apple's runtime is not here."""

import pytest
import torch

from deploy.lively import lively, parts
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.artefact import size_of
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.fold import fold
from espnetv2.deploy.forms import Normalize
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.outputs import NAMES, with_decoding
from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.targets import TARGETS
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

with quiet("coremltools", "torch.utils._pytree", native=True):
    ct = pytest.importorskip("coremltools", reason="the extra `coreml` is not installed")
    from deploy.mil import Program
    from espnetv2.deploy import to_coreml

FAMILIES = [
    "espnetv2_seg_s0_5",
    "espnetv2_seg_arxiv_s0_5",
    "espnetv2_ssd300_s0_5",
    "espnet_c_p2_q3",
    "espnet_p2_q3",
    "shufflenetv1_g3_x0_5",
]
CLOSE = {"fp32": 1e-4, "fp16": 0.03, "int8": 0.3}
"""Relative; fp16 and int8 compute in half, which torch's CPU kernels do a little otherwise."""


def job_of(network, *, task, size=(97, 131), batch=1, **options):
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(7))
    form = fold(network, **TARGETS["coreml"].fold)
    return Job(form, (images,), ("image",), NAMES[task], **options)


def package(job, folder):
    done = to_coreml.convert(job, folder)
    assert size_of(folder, done.files) > 0
    assert {"Manifest.json", "model.mlmodel", "weight.bin"} == {
        name.rpartition("/")[2] for name in done.files
    }
    return Program(folder / to_coreml.FILE), done


def assert_same(program, names, network, images, bound):
    with torch.inference_mode():
        expected = parts(network(images))
        found = program(image=images.numpy())
    assert set(found) == set(names)
    for name, truth in zip(names, expected, strict=True):
        assert found[name].dtype == torch.float32
        assert found[name].shape == truth.shape
        assert (truth - found[name]).abs().max() <= bound * truth.abs().max()


@pytest.mark.parametrize("precision", TARGETS["coreml"].precisions)
def test_a_classifier_is_its_package(precision, tmp_path):
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    job = job_of(network, task="classification", precision=precision)
    program, done = package(job, tmp_path)
    assert [(port.name, port.shape) for port in done.inputs] == [("image", (1, 3, 97, 131))]
    assert [(port.name, port.shape) for port in done.outputs] == [("logits", (1, 10))]
    assert_same(program, job.output_names, network, job.inputs[0], CLOSE[precision])
    assert ("constexpr_affine_dequantize" in program.kinds) == (precision == "int8")
    assert "prelu" in program.kinds


@pytest.mark.slow
@pytest.mark.parametrize("size", [(256, 320), (97, 131)])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_its_package(name, size, tmp_path):
    network = lively(entry(name).build())
    job = job_of(network, task=entry(name).task, size=size, precision="fp32")
    assert_same(package(job, tmp_path)[0], job.output_names, network, job.inputs[0], 1e-4)


@pytest.mark.slow
def test_a_language_step_is_its_package(tmp_path):
    network = lively(entry("eru_lm_7m").build(num_classes=99))
    step = LanguageStep(network)
    memory = tuple(torch.randn(one.shape) for one in step.beginning(1))
    inputs = (torch.randint(0, 99, (1, 1)), *memory)
    form = LanguageStep(fold(network)).eval()
    job = Job(form, inputs, step.input_names, step.output_names, precision="fp32")
    program, _ = package(job, tmp_path)
    with torch.inference_mode():
        expected = step(*inputs)
        given = {n: x.numpy() for n, x in zip(step.input_names, inputs, strict=True)}
        found = program(**given)
    for name, truth in zip(step.output_names, expected, strict=True):
        assert (truth - found[name]).abs().max() <= 1e-4 * truth.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("precision", TARGETS["coreml"].precisions)
def test_our_weights_decide_the_same(precision, tmp_path):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    spec = loaded.preprocessing.resized((256, 320))
    images = torch.stack([spec(picture) for picture in drawn_pictures(1, (256, 320))])
    job = Job(fold(loaded.network), (images,), ("image",), ("logits",), precision=precision)
    program, _ = package(job, tmp_path)
    with torch.inference_mode():
        truth, found = loaded.network(images), program(image=images.numpy())["logits"]
    same = (truth.argmax(1) == found.argmax(1)).float().mean()
    assert same >= {"fp32": 0.9999, "fp16": 0.995, "int8": 0.98}[precision]


def test_pixels_are_a_picture_and_probabilities_have_labels(tmp_path):
    network = lively(entry("espnetv2_s0_5").build(num_classes=3))
    spec = (
        CONVENTIONS["imagenet"] if "imagenet" in CONVENTIONS else next(iter(CONVENTIONS.values()))
    )
    chain = torch.nn.Sequential(Normalize(spec), fold(network))
    decoded = with_decoding(chain, task="classification", size=None).eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 96)).float()
    notes = {"model": "espnetv2_s0_5", "classes": "cat\ndog\nfish"}
    job = Job(decoded, (pixels,), ("pixels",), ("probabilities",), precision="fp32", notes=notes)
    program, done = package(job, tmp_path)
    assert done.inputs[0].shape == (1, 3, 64, 96)
    description = program.spec.description
    assert description.input[0].type.WhichOneof("Type") == "imageType"
    assert description.predictedFeatureName == "class"
    assert [one.name for one in description.output] == ["class", done.outputs[0].name]
    assert program.model.user_defined_metadata["model"] == "espnetv2_s0_5"
    with torch.inference_mode():
        expected = decoded(pixels)
        found = program(pixels=pixels.numpy())
    shares = next(x for x in found.values() if isinstance(x, torch.Tensor) and x.numel() == 3)
    assert torch.allclose(expected.flatten(), shares.flatten().float(), atol=1e-5)


def test_free_sizes_have_bounds(tmp_path):
    network = lively(entry("espnetv2_s0_5").build(num_classes=10))
    job = job_of(network, task="classification", batch=2, dynamic=True, precision="fp32")
    program, done = package(job, tmp_path)
    assert done.inputs[0].shape == ("batch", 3, "height", "width")
    assert done.outputs[0].shape == ("batch", 10)
    kind = program.spec.description.input[0].type.multiArrayType
    bounds = [(one.lowerBound, one.upperBound) for one in kind.shapeRange.sizeRanges]
    assert bounds == [(1, 8), (3, 3), (32, 2048), (32, 2048)]
    for shape in [(1, 3, 64, 64), (3, 3, 131, 97)]:
        assert_same(program, job.output_names, network, torch.randn(shape), 1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings(  # coremltools leaves its temporary folder to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_free_sizes_that_core_ml_has_not(tmp_path):
    network = lively(entry("espnet_p2_q3").build())
    job = job_of(network, task="segmentation", batch=2, dynamic=True)
    with pytest.raises(UserError, match="give --size HxW instead of --dynamic"):
        to_coreml.convert(job, tmp_path)
