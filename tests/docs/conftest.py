"""A desk with everything that the pages name: real pictures, own data, trees in their layouts."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from docs.commands import ROOT


def linked(source, target, count):
    """The first files of a folder, evenly, as links."""
    files = sorted(source.iterdir())
    target.mkdir(parents=True, exist_ok=True)
    for file in files[:: max(1, len(files) // count)][:count]:
        (target / file.name).symlink_to(file)


def flowers(root, data):
    for split, count in (("train", 6), ("val", 2)):
        for folder in sorted((data / "imagenette128" / split).iterdir()):
            linked(folder, root / split / folder.name, count)


def tags(root, data):
    for split in ("train", "val"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        source = data / "coco256"
        (root / "images" / split).symlink_to(source / "images" / f"{split}2017")
        name = f"annotations/instances_{split}"
        (root / f"{name}.json").symlink_to(source / f"{name}2017.json")


def scenes(root, data):
    for split, count in (("train", 12), ("val", 4)):
        linked(data / "camvid/images" / split, root / "images" / split, count)
        masks = root / "masks" / split
        masks.mkdir(parents=True)
        for picture in (root / "images" / split).iterdir():
            name = f"{picture.stem}.png"
            (masks / name).symlink_to(data / "camvid/labels" / split / name)
    names = "sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist"
    (root / "data.yaml").write_text(f"classes: [{names}]\nignore: [11, 255]\n")


def texts(root, data):
    root.mkdir()
    for split in ("train", "valid", "test"):
        lines = (data / "ptb" / f"ptb.{split}.txt").read_text().splitlines()[:300]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def coco(root, data):
    """Real pictures and boxes; the outlines that the excerpt lacks are those of the boxes."""
    source = data / "coco256"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(source / "images")
    for split in ("train2017", "val2017"):
        name = f"annotations/instances_{split}.json"
        content = json.loads((source / name).read_text(encoding="utf-8"))
        for one in content["annotations"]:
            x, y, wide, tall = one["bbox"]
            corners = [x, y, x + wide, y, x + wide, y + tall, x, y + tall]
            one |= {"segmentation": [corners], "iscrowd": 0}
        (root / name).write_text(json.dumps(content), encoding="utf-8")


def voc(root, data):
    """VOC's tree with SBD's masks beside its own, of ten real photographs."""
    source = data / "voc2012_seg" / "fullres10"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "JPEGImages").symlink_to(source / "images")
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (root / folder).symlink_to(source / "masks")
    names = sorted(path.stem for path in (source / "images").iterdir())
    for split, part in (("train", names[:8]), ("val", names[8:]), ("trainaug", names[:8])):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(part) + "\n")


@pytest.fixture(scope="module")
def own(shared, tmp_path_factory):
    """Folders of people's own data by the names that the pages give them."""
    root, data = tmp_path_factory.mktemp("own"), shared / "data"
    for name, make in (
        ("FLOWERS", flowers),
        ("TAGS", tags),
        ("SCENES", scenes),
        ("TEXTS", texts),
        ("COCO", coco),
        ("VOC", voc),
    ):
        make(root / name, data)
    return {path.name: str(path) for path in sorted(root.iterdir())} | {
        "SRC": str(root / "FLOWERS"),
        "CELLS": str(data / "bccd"),
        "CAMVID": str(data / "camvid"),
        "CITYSCAPES": str(data / "cityscapes"),
        "FOLDER": str(data / "camvid"),
    }


@pytest.fixture
def desk(tmp_path, shared, monkeypatch):
    """A folder with everything else that the pages name."""
    monkeypatch.setenv("ESPNETV2_WEIGHTS", str(shared / "weights"))
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path, shared)
    return tmp_path


def furnish(place: Path, shared: Path) -> None:
    cat = ROOT / "examples" / "pictures" / "cat.jpg"
    (place / "holiday").mkdir()
    for name in ("street.jpg", "cat.jpg", "holiday/one.jpg"):
        shutil.copy(cat, place / name)
    Image.open(cat).resize((1500, 1200)).save(place / "slide.png")
    for name in ("examples", "benchmarks", "tools"):
        (place / name).symlink_to(ROOT / name)
    shutil.copy(shared / "data" / "video" / "road_1280x720.mp4", place / "clip.mp4")
    official = shared / "weights" / "espnet" / "encoder" / "espnet_p_2_q_3.pth"
    shutil.copy(official, place / "official.pth")
