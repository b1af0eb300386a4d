"""ncnn's files say what the train form says, for every family of pictures' networks."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from deploy.converted import FAMILIES, agreement, difference, folded, job_of, made
from deploy.lively import lively, parts
from espnetv2.cli import app
from espnetv2.data.preprocess import CONVENTIONS
from espnetv2.deploy.artefact import Port
from espnetv2.deploy.conversion import Job
from espnetv2.deploy.engines import open_artefact
from espnetv2.deploy.export import export
from espnetv2.deploy.forms import Normalize, TwoSlopes
from espnetv2.deploy.forms_ncnn import NormalizeByConvolution, SignedPReLU, for_ncnn
from espnetv2.deploy.language_step import LanguageStep
from espnetv2.deploy.subject import Settings
from espnetv2.deploy.verify import pictures_in
from espnetv2.errors import UserError
from espnetv2.layers.conv import ConvNormAct
from espnetv2.layers.eesp import EESP
from espnetv2.models.catalog import entry
from espnetv2.weights.load import load_network

ncnn = pytest.importorskip("ncnn", reason="the extra `ncnn` is not installed")
pytest.importorskip("pnnx", reason="the extra `ncnn` is not installed")
pytest.importorskip("onnxscript", reason="the extra `ncnn` is not installed")

from espnetv2.deploy import to_ncnn  # noqa: E402
from espnetv2.deploy.to_ncnn import BIN, PARAM  # noqa: E402

SLOPES = [-1.7, -0.3, 0.0, 0.05, 0.25, 1.0, 1.8, 3.0]


def small():
    """A network with everything that makes conversions go wrong, and nothing else."""
    torch.manual_seed(3)
    return lively(nn.Sequential(ConvNormAct(3, 16, kernel_size=3, stride=2), EESP(16, 16)))


def job(network, *, size=(23, 31), **options):
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(7))
    return Job(folded("ncnn", network), (images,), ("image",), ("logits",), **options)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """Of `small()`; copy its folder before writing into it."""
    folder = tmp_path_factory.mktemp("small")
    return made("ncnn", job(small()), folder)[1].artefact


@pytest.fixture
def own(artefact, tmp_path):
    """The same, in a folder that may be spoilt."""
    for name in artefact.files:
        (tmp_path / name).write_bytes((artefact.folder / name).read_bytes())
    return replace(artefact, folder=tmp_path)


def engine_of(artefact, threads=1):
    from espnetv2.deploy.engine_ncnn import NcnnEngine

    return NcnnEngine(artefact, threads=threads)


def test_an_eesp_unit_is_the_train_form(artefact):
    network, engine = small(), engine_of(artefact)
    assert sorted(path.name for path in artefact.folder.iterdir()) == sorted(artefact.files)
    assert artefact.inputs == (Port("image", (1, 3, 23, 31)),)
    assert artefact.outputs == (Port("logits", (1, 16, 12, 16)),)
    for seed in range(3):
        x = torch.randn(1, 3, 23, 31, generator=torch.Generator().manual_seed(seed))
        assert difference(network, engine, x) <= 1e-5


def test_slopes_of_every_sign_and_size(tmp_path):
    network = lively(ConvNormAct(3, len(SLOPES)))
    network.act.weight.data = torch.tensor(SLOPES)
    _, engine = made("ncnn", job(network), tmp_path)
    assert difference(network, engine, torch.randn(1, 3, 23, 31)) <= 1e-5


def test_larger_batches_are_several_calls(artefact):
    network, engine = small(), engine_of(artefact)
    x = torch.randn(3, 3, 23, 31)
    with torch.inference_mode():
        assert torch.allclose(engine(x), network(x), atol=1e-4)
    with pytest.raises(UserError, match="takes pictures of 23x31, not 24x32"):
        engine(torch.randn(1, 3, 24, 32))


def test_nothing_narrower_than_float32_takes_part(artefact):
    """ncnn's own defaults compute in half where they can, and pnnx stores half."""
    engine = engine_of(artefact, threads=2)
    options = engine._net.opt
    narrow = [name for name in dir(options) if name.startswith(("use_fp16", "use_bf16", "use_int"))]
    assert len(narrow) >= 6
    assert not any(getattr(options, name) for name in narrow)
    assert (engine.precision, engine.threads, options.num_threads) == ("fp32", 2, 2)
    weights = sum(one.numel() for one in folded("ncnn", small()).state_dict().values())
    assert (artefact.folder / BIN).stat().st_size >= 4 * 0.9 * weights


def test_half_halves_the_weights_and_says_what_computes(artefact, tmp_path):
    network = small()
    _, engine = made("ncnn", job(network, precision="fp16"), tmp_path)
    assert (tmp_path / BIN).stat().st_size < 0.7 * (artefact.folder / BIN).stat().st_size
    assert engine.precision in {"fp16", "fp32"}  # fp32 where the processor has no half
    assert 1e-6 < difference(network, engine, torch.randn(1, 3, 23, 31)) <= 1e-2


def test_two_slopes_are_one_prelu_of_a_sign():
    network = lively(entry("espnetv2_s0_5").build())
    before = folded("ncnn", network)
    kept = {key: value.clone() for key, value in before.state_dict().items()}
    changed = for_ncnn(before)
    assert any(isinstance(one, SignedPReLU) for one in changed.modules())
    assert all(one.plain for one in changed.modules() if isinstance(one, TwoSlopes))
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        truth, found = network(x), changed(x)
    assert (truth - found).abs().max() <= 1e-5 * truth.abs().max()
    assert all(torch.equal(value, kept[key]) for key, value in before.state_dict().items())


@pytest.mark.parametrize("name", CONVENTIONS)
def test_normalisation_by_a_convolution(name):
    plain = Normalize(CONVENTIONS[name])
    pixels = torch.randint(0, 256, (1, 3, 5, 7)).float()
    assert torch.allclose(NormalizeByConvolution(plain)(pixels), plain(pixels), atol=1e-5)


def test_a_train_form_is_not_touched():
    network = small()
    assert for_ncnn(network) is network


def test_what_ncnn_cannot_load_is_one_line(own, capfd):
    (own.folder / PARAM).write_text("1\n1 1\nInput image 0 1 image\n")
    with pytest.raises(UserError, match=r"ncnn .* cannot read it; export again"):
        engine_of(own)


def test_files_of_another_network_are_one_line(own):
    with pytest.raises(UserError, match="name other inputs or outputs"):
        engine_of(replace(own, outputs=(Port("scores", (1, 16, 12, 16)),)))


class Sorted(nn.Module):
    def forward(self, x):
        return x.sort(dim=1).values


def test_what_ncnn_has_no_layer_for_is_one_line(tmp_path):
    images = torch.randn(1, 3, 8, 8)
    with pytest.raises(UserError, match=r"ncnn has no layer for|pnnx (cannot|lost)"):
        to_ncnn.convert(Job(Sorted(), (images,), ("image",), ("logits",)), tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("mask",), "no class map"), (("boxes", "scores", "labels"), "chooses the best boxes")],
)
def test_decoding_is_refused(names, message, tmp_path):
    with pytest.raises(UserError, match=f"{message}; leave --output raw"):
        to_ncnn.convert(replace(job(small()), output_names=names), tmp_path)


def test_a_step_of_a_language_model_is_refused(tmp_path):
    step = LanguageStep(lively(entry("eru_lm_7m").build()))
    inputs = (torch.zeros(1, 1, dtype=torch.int64), *step.beginning(1))
    with pytest.raises(UserError, match="language model's step cannot be converted"):
        to_ncnn.convert(Job(step, inputs, step.input_names, step.output_names), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(dynamic=True), "ncnn takes fixed sizes only; give --size HxW"),
        (Settings(precision="int8"), "ncnn is not exported in int8; choose from fp32, fp16"),
        (Settings(precision="bf16"), "ncnn is not exported in bf16; choose from fp32, fp16"),
        (Settings(gives="decoded"), "ncnn gives floats, no class map"),
    ],
)
def test_what_ncnn_cannot_do_is_one_line(settings, message, tmp_path):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    settings = settings if settings.dynamic else replace(settings, size=(64, 64))
    with pytest.raises(UserError, match=message):
        export(loaded, "ncnn", tmp_path / "out", settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, (97, 131)) for name in FAMILIES), ("espnetv2_seg_s0_5", (256, 320))],
)
def test_every_family_is_the_train_form(name, size, tmp_path):
    network, task = lively(entry(name).build()), entry(name).task
    done = job_of("ncnn", network, task=task, size=size)
    _, engine = made("ncnn", done, tmp_path)
    assert engine.precision == "fp32"
    pictures = (done.inputs[0], torch.randn(1, 3, *size))
    for picture in pictures:
        assert difference(network, engine, picture) <= 1e-4
        axis = 2 if task == "detection" else 1
        assert agreement(network, engine, picture, class_axis=axis) >= 0.9999
    with torch.inference_mode():  # random classifiers say nearly the same of every picture
        one, other = (parts(network(picture))[0].numpy() for picture in pictures)
    found = engine.run(pictures[0].numpy())[0] - engine.run(pictures[1].numpy())[0]
    assert np.abs(found - (one - other)).max() <= 1e-3 * np.abs(one - other).max()


@pytest.mark.slow
def test_pixels_in_and_probabilities_out(tmp_path):
    loaded = load_network("espnetv2_s0_5.imagenette")
    settings = Settings(size=(96, 128), takes="pixels", gives="decoded")
    made = export(loaded, "ncnn", tmp_path / "out", settings)
    assert made.difference < 1e-4
    assert (made.inputs[0].name, made.outputs[0].name) == ("pixels", "probabilities")
    pixels = np.full((1, 3, 96, 128), 100, dtype=np.float32)
    assert open_artefact(tmp_path / "out").run(pixels)[0].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "espnetv2_seg_s0_5.edgenets_voc_256",
        "espnetv2_seg_s2_0.edgenets_city_512",
        "espnetv2_seg_arxiv_s1_0.espnetv2_city_1024",
        "espnet_c_p2_q8.cityscapes",
        "espnet_p2_q8.camvid",
        "espnetv2_seg_s0_5.camvid",
        "espnetv2_s0_5.imagenette",
    ],
)
def test_released_weights_on_real_pictures(name, shared, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    folder = "imagenette128" if "imagenette" in name else "camvid"
    pictures = pictures_in(shared / "data" / folder, limit=3)
    settings = Settings(size=(256, 320), pictures=pictures)
    found = export(load_network(name), "ncnn", tmp_path / "out", settings)
    assert found.verified == "3 pictures in ncnn"
    assert found.computes_in == "fp32"
    assert found.difference <= 1e-4
    assert found.agreement >= 0.9999


@pytest.mark.slow
def test_a_benchmark_has_a_row_of_it(monkeypatch, capsys, tmp_path):
    words = "benchmark espnetv2_s0_5.imagenette --engine torch,ncnn --size 64x64 --batch 2"
    rest = ["--seconds", "0.2", "--out", str(tmp_path / "measured"), "--json"]
    monkeypatch.setattr(sys, "argv", ["espnetv2", *words.split(), *rest])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code in (0, None)
    row = json.loads(capsys.readouterr().out)["rows"][1]
    assert (row["engine"], row["precision"], row["threads"]) == ("ncnn", "fp32", 1)
    assert row["ms_median"] > 0
    assert 0 < row["difference"] < 1e-5
