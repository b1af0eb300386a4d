"""Looking through one split of a data set without stopping at the first fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from espnetv2.data.boxes import box_fault
from espnetv2.data.coco_instances import annotation_file, picture_folder, read_json
from espnetv2.data.csv_table import read_rows, table_file
from espnetv2.data.pictures import is_picture, open_picture
from espnetv2.data.sample import folder
from espnetv2.data.voc_boxes import listed, picture_of, read_things, voc_tree
from espnetv2.errors import UserError

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the data.

    Attributes:
        kind: Short name, the same for the same fault.
        where: File or folder.
        what: What is wrong.
        fix: What to do about it.
        serious: Whether it ruins runs; the rest is worth knowing.
    """

    kind: str
    where: str
    what: str
    fix: str
    serious: bool = True

    @property
    def line(self) -> str:
        """The whole in one line."""
        return f"{self.where}: {self.what}; {self.fix}"


@dataclass
class Scan:
    """What one split holds.

    Attributes:
        pictures: Every picture file that is used.
        counts: Pixels, boxes or pictures per class name.
        problems: What is wrong.
    """

    pictures: list[Path] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self, kind: str, where: Path | str, what: str, fix: str, *, serious: bool = True
    ) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, str(where), what, fix, serious))

    def open(self, path: Path) -> Image.Image | None:
        """Read a picture; a damaged one is a problem."""
        self.pictures.append(path)
        try:
            return open_picture(path)
        except UserError as error:
            what = str(error).removeprefix(f"{path}: ").split(";")[0]
            self.add("unreadable", path, what, "replace it, or train with --skip-bad")
            return None


def scan_folders(root: Path, split: str, tick: Tick) -> Scan:
    """A folder per class."""
    scan = Scan()
    base = folder(root / split, what="imagefolder")
    classes = sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        scan.add("empty", base, "no class folders", "expected <class>/*.jpg")
    found = {
        path: [p for p in sorted(path.rglob("*")) if is_picture(p) and not p.name.startswith(".")]
        for path in classes
    }
    todo = [(path, picture) for path, pictures in found.items() for picture in pictures]
    for path, pictures in found.items():
        scan.counts[path.name] = len(pictures)
        if not pictures:
            scan.add("empty", path, "class folder without pictures", "fill or remove it")
    for done, (_, picture) in enumerate(todo, start=1):
        scan.open(picture)
        tick(done, len(todo))
    return scan


def scan_csv(root: Path, split: str, tick: Tick) -> Scan:
    """A table with paths and labels."""
    scan = Scan()
    table = table_file(root, split)
    rows = read_rows(table, split)
    for done, (line, path, labels) in enumerate(rows, start=1):
        scan.counts.update(labels)
        if not labels:
            scan.add("no-label", f"{table}:{line}", "no label", "fill it in", serious=False)
        scan.open(path)
        tick(done, len(rows))
    return scan


def scan_voc_boxes(root: Path, split: str, tick: Tick) -> Scan:
    """XML files with boxes."""
    scan = Scan()
    tree = voc_tree(root)
    names = listed(tree / "ImageSets" / "Main", split)
    for done, name in enumerate(names, start=1):
        tick(done, len(names))
        path = tree / "Annotations" / f"{name}.xml"
        image = scan.open(picture_of(tree / "JPEGImages", name))
        try:
            things = read_things(path)
        except UserError as error:
            scan.add("annotation", path, str(error).split(";")[0], "mend or add the file")
            continue
        if image is not None:
            _stated_size(path, image, scan)
        if not things:
            scan.add("no-boxes", path, "no boxes", "not used in training", serious=False)
        for thing in things:
            scan.counts[thing.name] += 1
            _box(scan, path, thing.name, thing.corners, None if image is None else image.size)
    return scan


def scan_coco(root: Path, split: str, tick: Tick) -> Scan:
    """One JSON with boxes."""
    scan = Scan()
    path = annotation_file(root, split)
    content = read_json(path)
    base = picture_folder(root, split)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    scan.counts.update(dict.fromkeys(names.values(), 0))
    pictures = {picture["id"]: picture for picture in content["images"]}
    for done, picture in enumerate(pictures.values(), start=1):
        image = scan.open(base / picture["file_name"])
        stated = (picture.get("width"), picture.get("height"))
        if image is not None and image.size != stated:
            what = f"{image.width}x{image.height}, the JSON says {stated[0]}x{stated[1]}"
            scan.add("size", base / picture["file_name"], what, "mend the JSON or the picture")
        tick(done, len(pictures))
    for entry in content["annotations"]:
        where = f"{path} annotation {entry.get('id')}"
        picture = pictures.get(entry.get("image_id"))
        if picture is None or entry.get("category_id") not in names or len(entry["bbox"]) != 4:
            what = "unknown picture or category, or no box of four numbers"
            scan.add("annotation", where, what, "mend or remove it")
            continue
        name = names[entry["category_id"]]
        scan.counts[name] += 1
        x, y, width, height = entry["bbox"]
        corners = (x, y, x + width, y + height)
        _box(scan, where, name, corners, (picture["width"], picture["height"]))
    return scan


def _box(
    scan: Scan,
    where: Path | str,
    name: str,
    corners: tuple[float, float, float, float],
    size: tuple[int, int] | None,
) -> None:
    if fault := box_fault(corners):
        fix = "draw it again or remove it; training leaves it out"
        scan.add("box", where, f"box of {name!r} is {fault} {_numbers(corners)}", fix)
    elif size is not None and (
        min(corners[:2]) < -1 or corners[2] > size[0] + 1 or corners[3] > size[1] + 1
    ):
        scan.add(
            "box-outside",
            where,
            f"box of {name!r} {_numbers(corners)} leaves the {size[0]}x{size[1]} picture",
            "check that picture and annotation belong together; training cuts it",
        )


def _numbers(corners: Iterable[float]) -> str:
    return "(" + " ".join(f"{corner:g}" for corner in corners) + ")"


def _stated_size(path: Path, image: Image.Image, scan: Scan) -> None:
    size = ElementTree.parse(path).getroot().find("size")
    if size is None:
        return
    stated = (size.findtext("width", "0"), size.findtext("height", "0"))
    if stated not in {("0", "0"), (str(image.width), str(image.height))}:
        what = f"says {stated[0]}x{stated[1]}, the picture is {image.width}x{image.height}"
        scan.add("size", path, what, "annotate the picture that is there")
