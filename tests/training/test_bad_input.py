"""What users get wrong, and what machines do to them: one line of the real command."""

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import tiny_sets
from espnetv2.cli import app
from espnetv2.errors import UserError
from espnetv2.training.mishaps import one_line
from espnetv2.training.recipe import load_recipe, parse

PICTURES = {
    "task": "classification",
    "model": "espnetv2_s0_5",
    "data": {"size": [32, 32], "batch_size": 4, "workers": 0},
    "schedule": {"name": "cosine", "rate": 0.01},
}
MASKS = {
    **PICTURES,
    "task": "segmentation",
    "model": "espnet_p2_q3",
    "data": {**PICTURES["data"], "format": "camvid", "batch_size": 2},
}


def words_of(folder, recipe, *more):
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return [
        *("train", str(folder / "tiny.yaml"), "--data", str(folder / "data")),
        *("--out", str(folder / "run"), "--device", "cpu", *more),
    ]


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs the command in this process; gives the exit code and the lines on stderr."""

    def run(recipe, *more):
        monkeypatch.setattr(sys, "argv", ["espnetv2", *words_of(tmp_path, recipe, *more)])
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return code, capsys.readouterr().err.splitlines()

    yield run
    logging.getLogger().handlers.clear()  # they write to a stream that is gone


def refused(answer, *words, lines=1):
    """One line of error, exit code 2; what comes before it is the history of a run that began."""
    code, said = answer
    assert code == 2, said
    assert lines is None or len(said) == lines, said
    assert [line.startswith("error: ") for line in said].count(True) == 1, said
    for word in words:
        assert word in said[-1]
    return said[-1]


def half(path):
    """Cut a file short, as a full disk or a broken download leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_an_empty_class_folder_is_named(train, tmp_path):
    tiny_sets.imagefolder(tmp_path / "data")
    (tmp_path / "data/train/bird").mkdir()
    refused(train(PICTURES), "no pictures in", str(tmp_path / "data/train/bird"))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("workers", [0, 1])
def test_one_corrupt_picture_among_many_is_named(train, tmp_path, split, workers):
    """From a worker process too, whose errors arrive with a traceback in their text."""
    tiny_sets.imagefolder(tmp_path / "data", each=12)
    bad = half(tmp_path / "data" / split / "dog/7.png")
    answer = train(PICTURES, "--set", f"data.workers={workers}")
    refused(answer, str(bad), "damaged or cut short", "save the picture again")


def test_a_corrupt_picture_is_skipped_when_asked(train, tmp_path, caplog):
    tiny_sets.imagefolder(tmp_path / "data", each=4)
    bad = half(tmp_path / "data/train/dog/3.png")
    code, said = train(PICTURES, "--skip-bad")
    assert code == 0, said
    told = [record.getMessage() for record in caplog.records if str(bad) in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith(f"left out: {bad}: damaged or cut short")


def another_size(root):
    return tiny_sets.mask(root / "labels/train/1.png", values=(0, 3), size=(30, 40))


def out_of_range(root):
    return tiny_sets.mask(root / "labels/train/1.png", values=(0, 77))


def no_mask(root):
    path = root / "labels/train/1.png"
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("ruin", "words"),
    [
        (another_size, ["is 30x40 but its picture is 48x40; they must be equally large"]),
        (out_of_range, ["has label 77; this data set knows 0-11"]),
        (no_mask, ["has no mask"]),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_masks_that_do_not_fit_are_named(train, tmp_path, ruin, words, workers):
    bad = ruin(tiny_sets.camvid(tmp_path / "data"))
    refused(train(MASKS, "--set", f"data.workers={workers}"), str(bad), *words)


def no_json(root):
    path = tiny_sets.coco(root) / "annotations/instances_train.json"
    path.unlink()
    return path


def no_xml(root):
    path = tiny_sets.voc_boxes(root) / "Annotations/train0.xml"
    path.unlink()
    return path


def no_table(root):
    return (tiny_sets.table(root, [], name="val.csv") / "train.csv").name


@pytest.mark.parametrize(
    ("format", "task", "model", "lose"),
    [
        ("coco-multilabel", "multilabel", "espnetv2_s0_5", no_json),
        ("coco-boxes", "detection", "espnetv2_ssd300_s0_5", no_json),
        ("voc-boxes", "detection", "espnetv2_ssd300_s0_5", no_xml),
        ("csv", "classification", "espnetv2_s0_5", no_table),
    ],
)
def test_a_missing_annotation_file_is_named(train, tmp_path, format, task, model, lose):
    gone = lose(tmp_path / "data")
    data = {**PICTURES["data"], "format": format, "augment": "none"}
    refused(train({**PICTURES, "task": task, "model": model, "data": data}), str(gone))


def test_a_backbone_of_another_width_is_refused(train, tmp_path):
    tiny_sets.voc_boxes(tmp_path / "data")
    data = {**PICTURES["data"], "format": "voc-boxes", "augment": "none"}
    recipe = {**PICTURES, "task": "detection", "model": "espnetv2_ssd300_s1_0", "data": data}
    recipe["weights"] = "espnetv2_s0_5.imagenette"
    refused(train(recipe), "espnetv2_s0_5.imagenette: the backbone is of another width")


def test_an_unknown_field_offers_the_closest(train, tmp_path):
    tiny_sets.imagefolder(tmp_path / "data")
    refused(train({**PICTURES, "epoch": 3}), "unknown field 'epoch'; did you mean epochs")
    refused(train(PICTURES, "--set", "data.sise=[32,32]"), "did you mean data.size")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--device", "foo"], "--device foo: there is no such device; use auto, cpu or gpu"),
        (["--set", "loss.class_weights=[1,2,3]"], "3 factors but 2 classes (cat, dog"),
        (["--weights", "runs/a #1: b/model.safetensors"], "runs/a #1: b/model.safetensors is not"),
    ],
)
def test_what_only_the_machine_or_the_data_can_tell(train, tmp_path, words, answer):
    tiny_sets.imagefolder(tmp_path / "data")
    refused(train(PICTURES, *words), answer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(train, tmp_path):
    tiny_sets.imagefolder(tmp_path / "data")
    refused(train(PICTURES, "--device", "gpu"), "--device gpu: there is none here; use cpu")


def test_norms_that_see_a_single_value_say_how_to_see_more(train, tmp_path):
    tiny_sets.voc_boxes(tmp_path / "data")
    data = {**PICTURES["data"], "format": "voc-boxes", "batch_size": 1}
    recipe = {**PICTURES, "task": "detection", "model": "espnetv2_ssd300_s0_5", "data": data}
    refused(train(recipe), "a batch of 1 of 32x32; take more or larger pictures")


def test_a_bare_no_is_yamls_false_and_still_means_no():
    """Not bad input at all, but it was once answered as such."""
    assert load_recipe("camvid", changes=["freeze_norm=no"]).freeze_norm == "no"


ABSURD = ("--set", "schedule.rate=1.0e30")


def test_a_loss_that_runs_away_stops_and_keeps_the_last_good_checkpoint(train, tmp_path):
    tiny_sets.imagefolder(tmp_path / "data", each=8)
    last = tmp_path / "run/last.ckpt"
    absurd = {"name": "steps", "rate": 0.01, "steps": [1], "factor": 1.0e32}
    recipe = {**PICTURES, "schedule": absurd}
    assert train(recipe)[0] == 0
    (tmp_path / "run/summary.json").unlink()  # as if it had been stopped there
    before = last.read_bytes()
    refused(
        train(recipe, "--resume", "--set", "epochs=3", "--checkpoint-steps", "1"),
        *("the loss is nan at epoch 1, batch ", f"the last good checkpoint is {last}"),
        "start again with a lower rate or with clip",
        lines=None,
    )
    assert last.read_bytes() == before
    assert not (tmp_path / "run/next.ckpt").exists()


def test_weights_that_ran_away_are_not_kept_at_an_epochs_end_either(train, tmp_path):
    """Two batches an epoch: the first step's weights are ruined, the second loss says so."""
    tiny_sets.imagefolder(tmp_path / "data", each=2)
    refused(
        train(PICTURES, *ABSURD, "--set", "epochs=4", "--checkpoint-steps", "1"),
        *("the loss is nan at epoch 1, batch 0", "nothing was saved"),
        lines=None,
    )
    assert list((tmp_path / "run").glob("*t.ckpt")) == []


@pytest.mark.parametrize("place", ["a file", "no rights"])
def test_a_place_that_cannot_be_written(train, tmp_path, place):
    tiny_sets.imagefolder(tmp_path / "data")
    out = tmp_path / "tiny.yaml" / "run" if place == "a file" else Path("/proc/1/run")
    if place == "no rights" and not Path("/proc/1").is_dir():
        pytest.skip("no /proc here")
    answer = train(PICTURES, "--out", str(out))
    refused(answer, f"cannot write {out} (", "choose another --out")


def test_a_full_disk_keeps_what_was_there(train, tmp_path):
    """The system refuses every file beyond 20 kB, as a full disk does."""
    tiny_sets.imagefolder(tmp_path / "data")
    assert train(PICTURES)[0] == 0
    (tmp_path / "run/summary.json").unlink()  # as if it had been stopped there
    before = (tmp_path / "run/last.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        answer = train(PICTURES, "--resume", "--set", "epochs=2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(answer, "cannot write ", "the previous one is kept", lines=None)
    assert (tmp_path / "run/last.ckpt").read_bytes() == before
    assert list((tmp_path / "run").glob("*.part")) == []


SCARCE = """
import resource, sys
import espnetv2.training.fit
from espnetv2.cli.app import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the limit is Linux's")
def test_no_memory_says_how_to_need_less(tmp_path):
    """A real limit: half a gigabyte for batches that need several."""
    tiny_sets.masks(tmp_path / "data", labels="labels", values=(0, 3), count=16)
    data = {**MASKS["data"], "size": [512, 512], "batch_size": 16}
    words = words_of(tmp_path, {**MASKS, "data": data}, "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, *words], capture_output=True, text=True, check=False
    )
    refused(
        (done.returncode, done.stderr.splitlines()),
        "out of memory with batches of 16 pictures of 512x512",
        "--set data.batch_size=8 --set accumulate=2",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "batch_size=2 "),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "accumulate=2"),
        (MemoryError("Unable to allocate 4.00 GiB for an array"), "batches of 4 pictures"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "), "workers=0"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
    ],
)
def test_every_way_of_having_no_memory_is_known(error, words):
    with pytest.raises(UserError) as told, one_line(parse(PICTURES, source="test")):
        raise error
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_advice_fits_the_batch():
    single = load_recipe("camvid", changes=["data.batch_size=1", "data.size=[360, 480]"])
    text = load_recipe("ptb", changes=["data.batch_size=20"])
    smaller = r"make it smaller: --set data\.size=\[180,240\]"
    with pytest.raises(UserError, match=smaller), one_line(single):
        raise MemoryError
    fewer = r"20 streams .* --set data\.batch_size=10 or"
    with pytest.raises(UserError, match=fewer), one_line(text):
        raise MemoryError


def test_other_errors_pass_as_they_are():
    """A mistake of ours must not look like one of the user's."""
    with pytest.raises(RuntimeError, match="shapes"), one_line(parse(PICTURES, source="test")):
        raise RuntimeError("shapes do not fit")


def listen():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_saves_and_says_how_to_go_on(tmp_path):
    """A terminal sends it to the whole group, so that the workers hear it too."""
    tiny_sets.imagefolder(tmp_path / "data", each=40)
    more = ("--set", "epochs=50", "--set", "data.workers=2", "--checkpoint-steps", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "espnetv2", *words_of(tmp_path, PICTURES, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen,
    )
    while not (tmp_path / "run/last.ckpt").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate()
    folder = tmp_path / "run"
    said = errors.splitlines()
    told = refused((process.returncode, said), lines=None)
    assert told == f"error: interrupted; all is saved in {folder}, go on with --resume"
    assert all(line.startswith("epoch ") for line in said[:-1])
    assert out == ""
    state = torch.load(folder / "last.ckpt", weights_only=False)
    assert state["global_step"] > 0
