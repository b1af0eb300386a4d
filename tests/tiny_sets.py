"""Tiny data sets of every layout, drawn on the spot."""

import csv
import json

import numpy as np
from PIL import Image


def picture(path, *, size=(48, 40), seed=0):
    """Noise, so that no two pictures are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path, *, values=(0, 1), size=(48, 40)):
    """Vertical stripes of the values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.array(values, dtype=np.uint8)[np.arange(size[0]) * len(values) // size[0]]
    Image.fromarray(np.tile(stripes, (size[1], 1))).save(path)
    return path


def imagefolder(root, *, classes=("cat", "dog"), each=3):
    for number, split in enumerate(("train", "val")):
        for index, name in enumerate(classes):
            for i in range(each):
                picture(root / split / name / f"{i}.png", seed=1000 * number + 100 * index + i)
    return root


def masks(root, *, images="images", labels="masks", values=(0, 1, 255), count=3):
    for number, split in enumerate(("train", "val")):
        for i in range(count):
            picture(root / images / split / f"{i}.png", seed=100 * number + i)
            mask(root / labels / split / f"{i}.png", values=values)
    return root


def camvid(root):
    return masks(root, labels="labels", values=(0, 3, 8, 11))


def table(root, rows, *, name="train.csv", heads=("path", "label")):
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        writer.writerows(rows)
    return root


def voc_boxes(root, boxes=(("cat", 5, 6, 20, 30, 0), ("dog", 10, 1, 48, 40, 0)), *, count=2):
    """The same boxes in every picture: name, x1, y1, x2, y2, difficult."""
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (root / "Annotations").mkdir()
    for number, split in enumerate(("train", "val")):
        names = [f"{split}{i}" for i in range(count)]
        (lists / f"{split}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            picture(root / "JPEGImages" / f"{name}.png", seed=100 * number + i)
            things = "".join(
                f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>"
                f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
                "</bndbox></object>"
                for label, x1, y1, x2, y2, difficult in boxes
            )
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{things}</annotation>")
    return root


def coco(root, annotations=None, *, categories=((7, "cat"), (3, "dog"))):
    """Two pictures a split; annotations as (picture, category, x, y, w, h, crowd)."""
    if annotations is None:
        annotations = [(1, 7, 5, 6, 20, 30, 0), (1, 3, 0, 0, 8, 8, 1), (2, 3, 1, 1, 30, 30, 0)]
    for number, split in enumerate(("train", "val")):
        for i in (1, 2):
            picture(root / "images" / split / f"{i}.png", seed=100 * number + i)
        content = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": 48, "height": 40} for i in (1, 2)
            ],
            "categories": [{"id": key, "name": name} for key, name in categories],
            "annotations": [
                {
                    "id": index,
                    "image_id": row[0],
                    "category_id": row[1],
                    "bbox": list(row[2:6]),
                    "iscrowd": row[6],
                }
                for index, row in enumerate(annotations)
            ],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root
