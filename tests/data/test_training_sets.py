from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import tiny_sets
from espnetv2.data.boxes import Boxes
from espnetv2.data.training_sets import DataSpec, open_training_data
from espnetv2.errors import UserError


def _spec(format, root, augment, **changes):
    spec = DataSpec(format, root, (32, 48), "edgenets-segmentation", augment)
    return replace(spec, **changes)


def _segmentation(root, **changes):
    return open_training_data(
        _spec("camvid", tiny_sets.camvid(root), "camvid", **changes), task="segmentation"
    )


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


OPENERS = {
    "imagefolder": lambda root: open_training_data(
        _spec("imagefolder", tiny_sets.imagefolder(root), "imagenet", convention="imagenet"),
        task="classification",
    ),
    "camvid": _segmentation,
    "voc-boxes": lambda root: open_training_data(
        _spec("voc-boxes", tiny_sets.voc_boxes(root), "ssd", convention="edgenets-detection"),
        task="detection",
    ),
}


@pytest.mark.parametrize("format", list(OPENERS))
def test_an_item_depends_on_seed_epoch_and_index_only(tmp_path, format):
    train = OPENERS[format](tmp_path).train
    train.seed = 5
    train.set_epoch(3)
    forward = [train[i] for i in range(len(train))]
    torch.manual_seed(99)
    train.set_epoch(0)
    other_epoch = train[0]
    train.set_epoch(3)
    backward = [train[i] for i in reversed(range(len(train)))][::-1]
    assert _same(forward, backward)
    assert not _same(forward[0], other_epoch)
    train.seed = 6
    assert not _same(train[0], forward[0])


def test_workers_give_the_same_batches_and_see_the_next_epoch(tmp_path):
    data = _segmentation(tmp_path)
    loader = DataLoader(
        data.train, 2, num_workers=2, collate_fn=data.collate, persistent_workers=True
    )
    for epoch in (0, 1):
        data.train.set_epoch(epoch)
        here = [data.collate([data.train[i] for i in part]) for part in ((0, 1), (2,))]
        assert _same(list(loader), here)


def test_segmentation_batches_keep_the_contract(tmp_path):
    data = _segmentation(tmp_path)
    images, labels = data.collate([data.train[0], data.train[1]])
    assert (images.shape, images.dtype) == ((2, 3, 32, 48), torch.float32)
    assert (labels.shape, labels.dtype) == ((2, 32, 48), torch.int64)
    assert set(labels.unique().tolist()) <= {0, 3, 8, 255}
    assert (len(data.classes), len(data.palette), data.ignore) == (11, 11, 255)


def test_void_of_camvid_is_ignored_and_can_be_a_class(tmp_path):
    data = _segmentation(tmp_path)
    assert set(data.val[0][1].unique().tolist()) == {0, 3, 8, 255}
    twelve = replace(_spec("camvid", tmp_path, "none"), classes=(*data.classes, "void"))
    assert 11 in open_training_data(twelve, task="segmentation").val[0][1]


def test_validation_is_what_prediction_sees(tmp_path):
    data = _segmentation(tmp_path)
    image = Image.open(tmp_path / "images/val/1.png")
    assert torch.equal(data.val[1][0], data.preprocessing(image))


def test_classification_batches_keep_the_contract(tmp_path):
    data = OPENERS["imagefolder"](tmp_path)
    images, labels = data.collate([data.val[i] for i in range(6)])
    assert images.shape == (6, 3, 32, 48)
    assert (labels.tolist(), labels.dtype) == ([0, 0, 0, 1, 1, 1], torch.int64)
    assert (data.classes, data.palette, data.ignore) == (("cat", "dog"), None, None)
    assert data.class_counts().tolist() == [3, 3]


def test_imagenet_ids_are_shown_as_words(tmp_path):
    tiny_sets.imagefolder(tmp_path, classes=("n01440764", "n03888257"), each=1)
    data = open_training_data(_spec("imagefolder", tmp_path, "none"), task="classification")
    assert data.classes == ("tench", "parachute")


def test_a_class_of_validation_that_was_not_trained_is_an_error(tmp_path):
    tiny_sets.imagefolder(tmp_path, each=1)
    tiny_sets.picture(tmp_path / "val/bird/0.png")
    with pytest.raises(UserError, match="folder 'bird' is none of"):
        open_training_data(_spec("imagefolder", tmp_path, "none"), task="classification")


def test_detection_items_keep_the_contract(tmp_path):
    data = OPENERS["voc-boxes"](tmp_path)
    _, targets = data.collate([data.train[0], data.train[1]])
    for boxes, labels in targets:
        assert (boxes.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert set(labels.tolist()) <= {1, 2}
    truth = data.val[0][1]
    assert isinstance(truth, Boxes)
    expected = torch.tensor([[4, 5, 19, 29], [9, 0, 47, 39]]) / torch.tensor([48, 40, 48, 40])
    assert torch.allclose(truth.boxes, expected)
    assert data.class_counts().tolist() == [2, 2]


def test_without_augmentation_training_boxes_are_the_sound_ones(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path, [("cat", 5, 6, 20, 30, 1), ("dog", 10, 1, 48, 40, 0)])
    data = open_training_data(_spec("voc-boxes", root, "none"), task="detection")
    assert data.train[0][1][1].tolist() == [2]
    assert data.val[0][1].difficult.tolist() == [True, False]


def test_multilabel_targets_are_zeros_and_ones(tmp_path):
    data = open_training_data(
        _spec("coco-multilabel", tiny_sets.coco(tmp_path), "imagenet"), task="multilabel"
    )
    _, targets = data.collate([data.train[0], data.train[1]])
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[1, 1], [1, 0]]  # by sorted id; the crowd counts
    assert data.classes == ("dog", "cat")
    assert data.class_counts().tolist() == [2, 1]


def test_coco_boxes_leave_the_crowd_out_of_training(tmp_path):
    data = open_training_data(
        _spec("coco-boxes", tiny_sets.coco(tmp_path), "none"), task="detection"
    )
    assert data.train[0][1][1].tolist() == [2]
    assert data.val[0][1].crowd.tolist() == [False, True]
    assert data.class_counts().tolist() == [1, 1]


def test_pictures_without_boxes_are_not_trained_but_judged(tmp_path):
    root = tiny_sets.coco(tmp_path, [(1, 7, 5, 6, 20, 30, 0)])
    data = open_training_data(_spec("coco-boxes", root, "none"), task="detection")
    assert (len(data.train), len(data.val)) == (1, 2)


def test_a_limit_is_spread_over_the_classes(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    data = open_training_data(_spec("imagefolder", root, "none", limit=2), task="classification")
    assert [data.train[i][1] for i in range(2)] == [0, 1]


def test_a_corrupt_picture_is_named_or_skipped(tmp_path):
    root = tiny_sets.imagefolder(tmp_path)
    (root / "train/cat/1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    data = open_training_data(_spec("imagefolder", root, "none"), task="classification")
    with pytest.raises(UserError, match=r"cat.1\.png"):
        data.train[1]
    spec = _spec("imagefolder", root, "none", skip_bad=True)
    data = open_training_data(spec, task="classification")
    assert len(data.train) == 5
    assert len(data.skipped) == 1
    assert "1.png" in data.skipped[0]


def test_faulty_boxes_are_left_out_and_said(tmp_path):
    root = tiny_sets.voc_boxes(tmp_path, [("cat", 5, 6, 5, 6, 0), ("cat", 1, 1, 9, 9, 0)], count=1)
    data = open_training_data(_spec("voc-boxes", root, "ssd"), task="detection")
    assert len(data.train[0][1][0]) == 1
    assert len(data.skipped) == 2
    assert "train0.xml: box of 'cat' is empty; left out" in data.skipped[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "camvit"}, "unknown data format 'camvit'; did you mean camvid?"),
        ({"format": "voc-boxes"}, "'voc-boxes' is for detection, not segmentation; choose from"),
        ({"convention": "imagnet"}, "unknown preprocessing 'imagnet'"),
        ({"augment": "imagenet"}, "not segmentation; choose from none, camvid"),
        ({"size": (16, 64)}, "size 16x64 is too small"),
        ({"train_split": "training"}, "no folder .*training"),
        ({"classes": tuple("abcdefghijklmn")}, "14 classes are given, but the data set has 12"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, changes, message):
    tiny_sets.camvid(tmp_path)
    spec = replace(_spec("camvid", tmp_path, "camvid"), **changes)
    with pytest.raises(UserError, match=message):
        open_training_data(spec, task="segmentation")


def test_counts_are_pixels_without_unlabelled_ones(tmp_path):
    counts = _segmentation(tmp_path).class_counts()
    assert counts.tolist() == [3 * 12 * 40 if i in (0, 3, 8) else 0 for i in range(11)]


def test_augmented_labels_fit_the_picture(tmp_path):
    """A picture painted with its labels must come out painted with them."""
    root = tiny_sets.camvid(tmp_path)
    for path in (root / "labels/train").iterdir():
        labels = np.array(Image.open(path))
        Image.fromarray(np.repeat(labels[..., None] * 20, 3, 2)).save(
            root / "images/train" / path.name
        )
    data = open_training_data(_spec("camvid", root, "edgenets-voc"), task="segmentation")
    for epoch in range(5):
        data.train.set_epoch(epoch)
        image, labels = data.train[0]
        spec = data.preprocessing
        pixels = ((image[0] * spec.std[0] + spec.mean[0]) * 255).round()
        known = labels != 255
        assert ((pixels[known] - 20 * labels[known]).abs() < 20).float().mean() > 0.8


@pytest.mark.data
def test_real_sets_open_and_give_batches(shared):
    data = shared / "data"
    cases = [
        ("camvid", "camvid", "camvid", "segmentation", "train", "val", 367, 101),
        ("imagefolder", "imagenette128", "imagenet", "classification", "train", "val", 9469, 3925),
        ("voc-boxes", "bccd", "ssd", "detection", "train", "val", 205, 87),
        ("coco-boxes", "coco256", "ssd", "detection", "train2017", "val2017", None, 128),
        ("coco-multilabel", "coco256", "imagenet", "multilabel", "train2017", "val2017", 128, 128),
        ("cityscapes", "cityscapes", "edgenets-city", "segmentation", "train", "train", 1, 1),
        ("voc-seg", "voc2012_seg/fullres10", "edgenets-voc", "segmentation", "", "", 10, 10),
    ]
    for format, folder, augment, task, train, val, trained, judged in cases:
        spec = DataSpec(
            format, data / folder, (64, 96), "imagenet", augment, train_split=train, val_split=val
        )
        opened = open_training_data(spec, task=task)
        assert trained is None or len(opened.train) == trained
        assert len(opened.val) == judged
        images, _ = opened.collate([opened.train[0], opened.train[len(opened.train) - 1]])
        assert images.shape == (2, 3, 64, 96)
        assert opened.val[0][0].shape == (3, 64, 96)


@pytest.mark.data
def test_the_two_malformed_boxes_of_bccd_are_named(shared):
    spec = DataSpec("voc-boxes", shared / "data/bccd", (300, 300), "edgenets-detection", "ssd")
    data = open_training_data(spec, task="detection")
    assert sorted(line.split(":")[0][-8:] for line in data.skipped) == ["0338.xml", "0343.xml"]
    assert data.classes == ("Platelets", "RBC", "WBC")
