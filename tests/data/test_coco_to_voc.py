"""COCO's outlines and runs become VOC masks; pycocotools draws the same."""

import json
import os

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import tiny_sets
from espnetv2.cli.data import data_app
from espnetv2.data import coco_to_voc, voc
from espnetv2.data.coco import CLASSES
from espnetv2.data.coco_to_voc import COCO_NAMES, convert, draw_mask
from espnetv2.data.training_sets import DataSpec, open_training_data
from espnetv2.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = {1: "person", 2: "bicycle", 13: "stop sign", 63: "couch", 72: "tv"}
HEIGHT, WIDTH = 60, 80


def runs(mask):
    """Lengths of runs of 0, 1, 0, ... down the columns."""
    flat = mask.ravel(order="F").astype(int)
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]
    counts = [int(count) for count in np.diff(ends)]
    return counts if flat[0] == 0 else [0, *counts]


def segmentation(rng, kind):
    if kind == "outlines":
        return [
            (rng.random((rng.integers(3, 9), 2)) * [WIDTH * 1.1, HEIGHT * 1.1] - 3).ravel().tolist()
            for _ in range(rng.integers(1, 4))
        ]
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    y, x = rng.integers(0, 40, 2)
    mask[y : y + 25, x : x + 35] = rng.random((25, 35))[: HEIGHT - y, : WIDTH - x] > 0.2
    if kind == "runs":
        return {"size": [HEIGHT, WIDTH], "counts": runs(mask)}
    from pycocotools import mask as oracle

    packed = oracle.encode(np.asfortranarray(mask))
    return {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}


def coco(root, annotations, *, pictures=1, size=(WIDTH, HEIGHT)):
    """Annotations as (picture, category, crowd, segmentation)."""
    for i in range(1, pictures + 1):
        tiny_sets.picture(root / "images/train2017" / f"{i:012d}.jpg", size=size, seed=i)
    content = {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": size[0], "height": size[1]}
            for i in range(1, pictures + 1)
        ],
        "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        "annotations": [
            {"id": 100 + i, "image_id": row[0], "category_id": row[1], "bbox": [0, 0, 9, 9]}
            | {"iscrowd": row[2], "area": 81}
            | ({} if row[3] is None else {"segmentation": row[3]})
            for i, row in enumerate(annotations)
        ],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    file = root / "annotations/instances_train2017.json"
    file.write_text(json.dumps(content))
    return file


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def test_masks_are_those_of_pycocotools(tmp_path):
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    rows = [
        (picture, int(rng.choice(list(NAMES))), int(kind == "runs"), segmentation(rng, kind))
        for picture in range(1, 13)
        for kind in rng.permutation(["outlines", "outlines", "runs", "packed"])
    ]
    file = coco(tmp_path, rows, pictures=12)
    done = convert(tmp_path, tmp_path / "out", min_side=32)
    oracle = COCO(str(file))
    number = {1: 15, 2: 2, 63: 18, 72: 20}
    compared = 0
    for picture in range(1, 13):
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        entries = [a for a in oracle.dataset["annotations"] if a["image_id"] == picture]
        for crowd in (0, 1):
            for entry in entries:
                if entry["iscrowd"] != crowd or entry["category_id"] not in number:
                    continue
                value = 255 if crowd else number[entry["category_id"]]
                inside = oracle.annToMask(entry) == 1
                expected = np.where(inside & (expected == 0), value, expected)
        path = tmp_path / "out/train2017" / f"{picture:012d}.png"
        labelled = np.unique(expected[expected != 255])
        assert path.is_file() == (len(labelled) > 1)
        if path.is_file():
            with Image.open(path) as mask:
                assert mask.mode == "P"
                assert mask.getpalette()[45:48] == list(voc.PALETTE[15])
                np.testing.assert_array_equal(np.array(mask), expected)
            compared += 1
    assert done.pictures == done.drawn == compared > 8


def test_the_first_object_stays_and_crowds_take_only_what_is_left():
    left, right, all_ = (np.zeros((2, 4), dtype=bool) for _ in range(3))
    left[:, :2], right[:, 1:3], all_[:] = True, True, True
    labels = draw_mask([(5, True, all_), (3, False, left), (7, False, right)], 2, 4)
    assert labels.tolist() == [[3, 3, 7, 255]] * 2


def test_pictures_that_teach_nothing_are_left_out(tmp_path):
    coco(
        tmp_path,
        [
            (1, 1, 0, square(2, 3, 9)),
            (2, 13, 0, square(2, 3, 9)),  # not of VOC's
            (3, 1, 1, {"size": [HEIGHT, WIDTH], "counts": [50, 200, 4550]}),  # a crowd alone
            (4, 1, 0, square(-1, -1, 99)),  # person everywhere
        ],
        pictures=5,
    )
    done = convert(tmp_path, tmp_path / "out", min_side=HEIGHT)
    assert (done.pictures, done.drawn, done.small, done.empty) == (1, 1, 0, 2)
    done = convert(tmp_path, tmp_path / "out2", min_side=HEIGHT + 1)
    assert (done.pictures, done.small) == (0, 3)


def test_nothing_left_is_a_mistake(tmp_path):
    coco(tmp_path, [(1, 1, 0, square(2, 3, 9))])
    result = CliRunner().invoke(data_app, ["coco2voc", str(tmp_path), "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, UserError)
    assert "no picture is left of 1 with VOC's classes: 1 too small" in str(result.exception)


def test_a_stopped_conversion_goes_on(tmp_path, monkeypatch):
    rows = [(picture, 1, 0, square(2, 3, 9)) for picture in (1, 2, 3)]
    coco(tmp_path, rows, pictures=3)
    out = tmp_path / "out"
    save, calls = Image.Image.save, []

    def full(self, path, **more):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a mask")
            raise OSError(28, os.strerror(28))
        return save(self, path, **more)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*\(No space left on device\); make room"):
        convert(tmp_path, out, min_side=32)
    assert len(list(out.rglob("*.png"))) == 2
    assert list(out.rglob("*.part")) == []
    assert list(out.glob("*.txt")) == []
    monkeypatch.undo()
    done = convert(tmp_path, out, min_side=32)
    assert (done.pictures, done.drawn) == (3, 1)
    assert len(done.list.read_text().splitlines()) == 3


def voc_tree(root):
    for name, folder in (("a", "SegmentationClass"), ("b", "SegmentationClassAug")):
        tiny_sets.picture(root / "JPEGImages" / f"{name}.jpg")
        tiny_sets.mask(root / folder / f"{name}.png", values=(0, 15, 255))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("a\nb\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("a\n")
    return root


def test_voc_sbd_and_coco_are_trained_on_together(tmp_path):
    coco(tmp_path / "coco", [(1, 72, 0, square(0, 0, 40)), (1, 1, 0, square(0, 0, 40))])
    result = CliRunner().invoke(
        data_app,
        ["coco2voc", str(tmp_path / "coco"), "--out", str(tmp_path / "drawn"), "--min-side", "32"],
    )
    assert result.exit_code == 0, result.output
    assert "1 pictures in " in result.stdout
    words = result.stdout.split("'data.extra=")[1].split("'")[0]
    spec = DataSpec(
        "voc-seg",
        voc_tree(tmp_path / "voc"),
        (32, 48),
        "edgenets-segmentation",
        "none",
        train_split="trainaug",
        extra=tuple(map(tmp_path.joinpath, yaml.safe_load(words))),
    )
    data = open_training_data(spec, task="segmentation")
    assert (len(data.train), len(data.val)) == (3, 1)
    assert set(data.train[2][1].unique().tolist()) == {0, 20}
    assert int(data.class_counts()[20]) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "is empty; write a line picture TAB mask"),
        ("a.png b.png\n", "line 1: expected picture TAB mask"),
        ("a.png\tb.png\n", r"line 1: no file .*a\.png"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "more.txt").write_text(text)
    spec = DataSpec("camvid", tiny_sets.camvid(tmp_path), (32, 48), "imagenet", "none")
    spec = DataSpec(**{**spec.__dict__, "extra": (tmp_path / "more.txt",)})
    with pytest.raises(UserError, match=message) as error:
        open_training_data(spec, task="segmentation")
    assert "\n" not in str(error.value)


def test_lists_are_for_masks_only(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    spec = DataSpec("imagefolder", root, (32, 48), "imagenet", "none", extra=(tmp_path / "x",))
    with pytest.raises(UserError, match=r"data\.extra lists masks, but imagefolder has none"):
        open_training_data(spec, task="classification")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "annotation 100 of .* has no segmentation, only a box"),
        ({"size": [9, 9], "counts": [81]}, r"annotation 100 .* cannot be drawn \(a mask of"),
        ({"size": [HEIGHT, WIDTH], "counts": [7]}, "annotation 100 .* cannot be drawn"),
        ({"size": [HEIGHT, WIDTH], "counts": "zz"}, "annotation 100 .* cannot be drawn"),
        ([["a", "b"] * 4], "annotation 100 .* cannot be drawn"),
    ],
)
def test_damaged_outlines_are_named(tmp_path, shape, message):
    coco(tmp_path, [(1, 1, 0, shape)])
    with pytest.raises(UserError, match=message) as error:
        convert(tmp_path, tmp_path / "out", min_side=32)
    assert "\n" not in str(error.value)


def test_a_missing_picture_is_named_before_anything_is_drawn(tmp_path):
    coco(tmp_path, [(1, 1, 0, square(0, 0, 9)), (2, 1, 0, square(0, 0, 9))], pictures=2)
    (tmp_path / "images/train2017/000000000002.jpg").unlink()
    with pytest.raises(UserError, match=r"lists 000000000002\.jpg, which is not in"):
        convert(tmp_path, tmp_path / "out", min_side=32)
    assert not (tmp_path / "out").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    file = coco(tmp_path, [(1, 1, 0, square(0, 0, 9))])
    file.write_text(file.read_text().replace("000000000001.jpg", "../../x.jpg"))
    with pytest.raises(UserError, match="outside its folder"):
        convert(tmp_path, tmp_path / "out", min_side=32)


def test_without_the_extra_it_says_which(tmp_path, monkeypatch):
    coco(tmp_path, [(1, 1, 0, square(0, 0, 9))])
    monkeypatch.setattr(
        coco_to_voc,
        "require",
        lambda module, *, extra: (_ for _ in ()).throw(UserError(f"espnetv2[{extra}]")),
    )
    with pytest.raises(UserError, match="detection"):
        convert(tmp_path, tmp_path / "out", min_side=32)


def test_the_names_are_those_of_the_official_ids():
    """The EdgeNets code maps by id; COCO's names, in the order of their ids, agree with it."""
    ids = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
    places = [CLASSES.index(name) for _, name in sorted(zip(ids, COCO_NAMES, strict=True))]
    assert places == sorted(places)


@pytest.mark.data
def test_a_file_with_boxes_only_is_refused(shared, tmp_path):
    with pytest.raises(UserError, match="has no segmentation, only a box"):
        convert(shared / "data/coco256", tmp_path / "out")
