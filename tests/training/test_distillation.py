"""A teacher's word beside the truth: the loss, the teacher's stillness, exact resume, mistakes."""

import csv
import math

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny_sets
from close import assert_within
from espnetv2.data.catalog import LABELS
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.training import fit
from espnetv2.training.distillation import Distiller, divergence, open_distiller, pixels_of
from espnetv2.training.recipe import Distill, parse
from espnetv2.training.trainer import Run
from espnetv2.weights.files import Header, write_safetensors

TINY = {
    "task": "classification",
    "model": "espnetv2_s0_5",
    "data": {"size": [32, 32], "batch_size": 4, "workers": 0, "augment": "imagenet-light"},
    "schedule": {"name": "cosine", "rate": 0.02},
    "loss": {"mixup": 0.2},
    "ema": 0.9,
    "epochs": 2,
}


def recipe(teacher=None, file=None, **changes):
    distill = {"teacher": teacher, "teacher_weights": None if file is None else str(file)}
    return parse({**TINY, "distill": distill, **changes}, source="test")


def ours(path, name, *, classes, convention="imagenet"):
    """A weights file of this package with random weights."""
    network = entry(name).build(num_classes=classes, in_channels=3)
    header = Header(
        model=name,
        options={"num_classes": classes},
        classes=tuple(f"class {i}" for i in range(classes)),
        palette=None,
        preprocessing=CONVENTIONS[convention].resized((32, 32)).to_json(),
    )
    write_safetensors(network.state_dict(), header, path)
    return path


class Stub(torch.nn.Module):
    """Says the same whatever it sees, and keeps what it saw."""

    def __init__(self, says):
        super().__init__()
        self.says = says

    def forward(self, images):
        self.saw = images
        return self.says


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def test_the_loss_of_classes_is_the_plain_formula():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    settings = Distill(temperature=3.0, weight=0.3)
    stub = Distiller(
        Stub(teacher),
        settings,
        task="classification",
        ours=Preprocessing(),
        theirs=Preprocessing(),
    )
    got = stub.loss(torch.tensor(2.0), student, torch.zeros(3, 3, 4, 4), torch.zeros(3))
    rows = zip(teacher.tolist(), student.tolist(), strict=True)
    soft = sum(kl(softmax(t, 3.0), softmax(s, 3.0)) for t, s in rows) / 3
    assert float(got) == pytest.approx(0.7 * 2.0 + 0.3 * 9 * soft, rel=1e-5)


def test_the_loss_of_many_labels_is_binary_cross_entropy_up_to_a_constant():
    student = torch.randn(3, 5, requires_grad=True)
    teacher = torch.randn(3, 5)
    soft = divergence(
        student, teacher, task="multilabel", temperature=2.0, targets=torch.zeros(3, 5)
    )
    p, q = (teacher / 2).sigmoid(), (student / 2).sigmoid()
    plain = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert float(soft.detach()) == pytest.approx(4 * float(plain.sum().detach()) / 3, rel=1e-5)
    (slope,) = torch.autograd.grad(soft, student)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(student / 2, p, reduction="sum")
    (expected,) = torch.autograd.grad(4 * cross / 3, student)
    assert_within("slope", slope, expected, 1e-6)


def test_unlabelled_pixels_are_not_taught():
    student, teacher = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    targets = torch.full((2, 3, 3), 255)
    targets[0, 1, 2] = 3
    soft = divergence(student, teacher, task="segmentation", temperature=4.0, targets=targets)
    one = kl(softmax(teacher[0, :, 1, 2].tolist(), 4), softmax(student[0, :, 1, 2].tolist(), 4))
    assert float(soft) == pytest.approx(16 * one, rel=1e-5)
    nothing = torch.full((2, 3, 3), 255)
    assert divergence(student, teacher, task="segmentation", temperature=4.0, targets=nothing) == 0


@pytest.mark.parametrize("sizes", [((6, 8), (3, 4)), ((3, 4), (6, 8))])
def test_maps_of_other_sizes_are_brought_to_the_students(sizes):
    student, teacher = torch.zeros(1, 2, *sizes[0]), torch.ones(1, 2, *sizes[1])
    teacher[:, 1] += 1
    for labels in sizes:
        soft = divergence(
            student,
            teacher,
            task="segmentation",
            temperature=1.0,
            targets=torch.zeros(1, *labels, dtype=torch.int64),
        )
        assert float(soft) == pytest.approx(kl(softmax([1, 2], 1), [0.5, 0.5]), rel=1e-5)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("to", CONVENTIONS)
def test_the_teacher_sees_its_own_normalisation(name, to):
    """What it sees is what its convention makes of the very same pixels."""
    pixels = torch.randint(0, 256, (2, 3, 5, 4)).float()
    mine, theirs = CONVENTIONS[name], CONVENTIONS[to]
    stub = Distiller(
        Stub(torch.zeros(2, 2)), Distill(), task="classification", ours=mine, theirs=theirs
    )
    images = mine.normalize(pixels) / mine.divisor
    assert_within("pixels", pixels_of(images, mine), pixels, 2e-3)
    stub.teach(images)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).byte().numpy())
    expected = theirs.resized(None)(picture)
    assert_within("seen", stub.teacher.saw[0], expected, 1e-4)


def test_the_libraries_own_means_are_taken(tmp_path):
    torch.save(timm.create_model("mixer_s32_224", num_classes=2).state_dict(), tmp_path / "t.pth")
    teacher = open_distiller(
        recipe("timm:mixer_s32_224", tmp_path / "t.pth", data={"size": [224, 224]}),
        CONVENTIONS["imagenet"],
        classes=2,
    )
    assert teacher.theirs.mean == (0.5, 0.5, 0.5)
    save_file(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "t.safetensors")
    teacher = open_distiller(
        recipe("torchvision:resnet18", tmp_path / "t.safetensors"),
        CONVENTIONS["imagenet"],
        classes=2,
    )
    assert teacher.theirs.std == (0.229, 0.224, 0.225)


def run_of(data, out, **changes):
    return Run(data=data, out=out, device="cpu", progress=False, checkpoint_steps=1, **changes)


@pytest.fixture
def taught(tmp_path):
    """A tiny set of two classes and a recipe with a teacher."""
    data = tiny_sets.imagefolder(tmp_path / "data", each=6)
    teacher = torchvision.models.mobilenet_v3_small(num_classes=2)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    return data, recipe("torchvision:mobilenet_v3_small", tmp_path / "teacher.pth")


@pytest.mark.slow
def test_the_teacher_stays_as_it_is_and_the_run_resumes_exactly(taught, tmp_path, monkeypatch):
    data, spec = taught
    opened = []

    def remember(*words, **more):
        opened.append(open_distiller(*words, **more))
        return opened[-1]

    monkeypatch.setattr(fit, "open_distiller", remember)
    fit.train(spec, run_of(data, tmp_path / "whole"))
    (teacher,) = opened
    before = torch.load(tmp_path / "teacher.pth", weights_only=True)
    after = teacher.teacher.state_dict()
    assert [k for k in before if not torch.equal(before[k], after[k])] == []
    assert not teacher.teacher.training
    kept = torch.load(tmp_path / "whole" / "last.ckpt", weights_only=False)
    network = set(entry("espnetv2_s0_5").build(num_classes=2, in_channels=3).state_dict())
    for state in (kept["state_dict"], kept["current_model_state"]):
        assert {k for k in state if not k.startswith("valid.")} == {f"network.{k}" for k in network}
    moved = sum(len(group["params"]) for group in kept["optimizer_states"][0]["param_groups"])
    assert moved <= len(network)

    calls = []
    teach = Distiller.teach

    def fall(self, images):
        calls.append(len(images))
        if len(calls) == 6:  # of three steps an epoch (and the look at its classes): in the second
            raise ZeroDivisionError
        return teach(self, images)

    monkeypatch.setattr(Distiller, "teach", fall)
    with pytest.raises(ZeroDivisionError):
        fit.train(spec, run_of(data, tmp_path / "broken"))
    fit.train(spec, run_of(data, tmp_path / "broken", resume=True))
    assert calls == [1, 4, 4, 4, 4, 4, 1, 4, 4]
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")
    )
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


@pytest.mark.slow
def test_a_student_comes_to_speak_like_its_teacher(taught, tmp_path):
    """With weight 1 the truth says nothing: only the teacher can have moved the student."""
    data, spec = taught
    teacher = torchvision.models.mobilenet_v3_small(num_classes=2)
    teacher.classifier[-1].bias.data = torch.tensor([2.0, -2.0])  # whatever it sees
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    spec = recipe(
        distill={**spec.distill.model_dump(), "weight": 1.0, "temperature": 1.0},
        data={**TINY["data"], "augment": "none"},
        optimizer={"name": "adam"},
        schedule={"name": "cosine", "rate": 0.003},
        loss={},
        ema=None,
        epochs=6,
    )
    fit.train(spec, run_of(data, tmp_path / "run"))
    with (tmp_path / "run" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[0] > 0.1
    assert losses[-1] < losses[0] / 3


@pytest.mark.slow
def test_segmenters_and_many_labels_are_taught_by_ours(tmp_path):
    data = tiny_sets.camvid(tmp_path / "camvid")
    classes = len(LABELS["camvid"].classes) - 1
    file = ours(
        tmp_path / "seg.safetensors",
        "espnet_p2_q3",
        classes=classes,
        convention="espnet-camvid",
    )
    spec = recipe(
        str(file),
        task="segmentation",
        model="espnetv2_seg_s0_5",
        data={
            **TINY["data"],
            "format": "camvid",
            "augment": "camvid",
            "convention": "edgenets-segmentation",
        },
        loss={},
        epochs=1,
    )
    assert "miou" in fit.train(spec, run_of(data, tmp_path / "seg"))["metrics"]
    data = tiny_sets.coco(tmp_path / "coco")
    file = ours(tmp_path / "many.safetensors", "espnetv2_s1_0", classes=2)
    many = {**TINY["data"], "format": "coco-multilabel", "augment": "none"}
    spec = recipe("espnetv2_s1_0", file, task="multilabel", data=many, loss={}, epochs=1)
    assert "map" in fit.train(spec, run_of(data, tmp_path / "many"))["metrics"]


def test_no_teacher_is_no_distiller():
    assert open_distiller(recipe(), CONVENTIONS["imagenet"], classes=2) is None


def test_opening_a_teacher_draws_no_number_of_the_run(taught):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    open_distiller(taught[1], CONVENTIONS["imagenet"], classes=2)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("teacher", "file", "words"),
    [
        ("timm:resnet81", None, "unknown timm model 'resnet81'; did you mean resnet18"),
        ("torchvision:resnt18", None, "unknown torchvision model 'resnt18'; did you mean resnet18"),
        ("espnet2_s1_0", None, "unknown model 'espnet2_s1_0'; did you mean espnetv2_s1_0"),
        ("espnetv2_s1_0", "seg", "is a espnetv2_seg_s0_5, not espnetv2_s1_0"),
        ("espnetv2_seg_s0_5", "seg", "is for segmentation; the recipe needs one for classific"),
        ("espnetv2_s0_5", "five", "has 5 classes, but the data has 2"),
        ("torchvision:resnet18", "five-resnet", "has 5 classes, but the data has 2"),
        ("timm:resnet18", "five", "lacks"),
        ("timm:resnet18", "none", "is not a file"),
        ("torchvision:resnet18", "text", "cannot be read"),
        ("timm:vit_tiny_patch16_224", "vit", "does not take pictures of 32x32"),
    ],
)
def test_mistakes_are_one_line(teacher, file, words, tmp_path):
    make = {
        "seg": lambda path: ours(path, "espnetv2_seg_s0_5", classes=3),
        "five": lambda path: ours(path, "espnetv2_s0_5", classes=5),
        "five-resnet": lambda path: save_file(
            torchvision.models.resnet18(num_classes=5).state_dict(), path
        ),
        "vit": lambda path: save_file(
            timm.create_model("vit_tiny_patch16_224", num_classes=2).state_dict(), path
        ),
        "text": lambda path: path.write_text("no weights"),
        "none": lambda path: None,
    }
    path = None
    if file is not None:
        path = tmp_path / ("none.pth" if file == "none" else "teacher.safetensors")
        make[file](path)
    with pytest.raises(UserError) as error:
        open_distiller(recipe(teacher, path), CONVENTIONS["imagenet"].resized((32, 32)), classes=2)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_picture_teacher_is_none_for_segmentation():
    spec = recipe("timm:resnet18", task="segmentation", model="espnetv2_seg_s0_5", loss={})
    with pytest.raises(UserError, match="classifies whole pictures"):
        open_distiller(spec, CONVENTIONS["imagenet"], classes=2)


@pytest.mark.parametrize("task", ["detection", "language"])
def test_other_tasks_have_no_teacher(task):
    with pytest.raises(UserError, match=f"learn from a teacher, not {task}; leave it out"):
        recipe("timm:resnet18", task=task)


def test_a_misspelt_field_is_offered():
    with pytest.raises(UserError, match=r"did you mean distill\.temperature"):
        parse({**TINY, "distill": {"temprature": 2}}, source="test")


@pytest.mark.parametrize("teacher", ["torchvision:resnet18", "timm:resnet18.a1_in1k"])
def test_weights_out_of_reach_are_one_line(teacher, tmp_path, monkeypatch):
    """Every road leads to a port where nobody listens, and every cache is empty."""
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies it began with
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries for long
    with pytest.raises(UserError) as error:
        open_distiller(recipe(teacher), CONVENTIONS["imagenet"], classes=1000)
    assert str(error.value).startswith(f"the weights of {teacher} cannot be had (")
    assert str(error.value).endswith("or give a file as distill.teacher_weights")
    assert "\n" not in str(error.value)
