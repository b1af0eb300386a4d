"""The data doctor: what in a data set ruins runs, and what to do about it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from espnetv2.data.scan_masks import scan_masks
from espnetv2.data.scans import (
    Problem,
    Scan,
    Tick,
    scan_coco,
    scan_csv,
    scan_folders,
    scan_voc_boxes,
)
from espnetv2.errors import UserError, unknown

Progress = Callable[[str, int, int], None]
"""Called with the split, the pictures done and their number."""

_RARE = 0.001
_UNEVEN = 10
_MASKS = ("masks", "camvid", "cityscapes", "voc-seg")

_SCANS: Mapping[str, Callable[[Path, str, Tick], Scan]] = {
    "imagefolder": scan_folders,
    "csv": scan_csv,
    **{name: partial(scan_masks, name) for name in _MASKS},
    "voc-boxes": scan_voc_boxes,
    "coco-boxes": scan_coco,
    "coco-multilabel": scan_coco,
}


def check_data(
    format: str, root: Path, splits: Sequence[str], *, progress: Progress | None = None
) -> list[Problem]:
    """Look at every file of the splits; serious problems come first.

    Args:
        format: A layout, as in `data.sources.FORMATS`.
        progress: Told how far it is.

    Raises:
        UserError: The format is unknown or a split is not there at all.
    """
    if format not in _SCANS:
        raise unknown("data format", format, _SCANS)
    if not root.exists():
        raise UserError(f"no folder {root}; check --data")
    scans = {}
    for split in splits:
        tick = partial(progress or _silent, split)
        scans[split] = _SCANS[format](root, split, tick)
    problems = [problem for scan in scans.values() for problem in scan.problems]
    problems += _imbalance(scans, pixels=format in _MASKS)
    problems += _missing_classes(scans)
    problems += _duplicates(scans)
    return sorted(problems, key=lambda problem: not problem.serious)


def _silent(split: str, done: int, total: int) -> None:
    pass


def _imbalance(scans: Mapping[str, Scan], *, pixels: bool) -> list[Problem]:
    name, scan = next(iter(scans.items()))
    present = {key: count for key, count in scan.counts.items() if count}
    total = sum(present.values())
    if len(present) < 2:
        if not present:
            return []
        only = next(iter(present))
        return [Problem("one-class", name, f"{only!r} is the only class that occurs", "add others")]
    rare = min(present, key=lambda key: present[key])
    often = max(present, key=lambda key: present[key])
    ratio = present[often] / present[rare]
    # pixels are always uneven; only a hardly visible class is worth a word
    if (present[rare] / total >= _RARE) if pixels else (ratio <= _UNEVEN):
        return []
    what = (
        f"{rare!r} has {present[rare]:,}, {often!r} {present[often]:,}, {ratio:.0f} times as much"
    )
    fix = "use class weights (`espnetv2 data weights`) or add samples"
    return [Problem("imbalance", name, what, fix, serious=False)]


def _missing_classes(scans: Mapping[str, Scan]) -> list[Problem]:
    splits = list(scans)
    problems = []
    trained = {name for name, count in scans[splits[0]].counts.items() if count}
    for split in splits[1:]:
        judged = {name for name, count in scans[split].counts.items() if count}
        for name in sorted(judged - trained):
            what = f"class {name!r} does not occur in {splits[0]}"
            problems.append(
                Problem("untrained-class", split, what, "move samples or drop the class")
            )
        for name in sorted(trained - judged):
            what = f"class {name!r} does not occur, so its score says nothing"
            fix = "move some samples here"
            problems.append(Problem("unjudged-class", split, what, fix, serious=False))
    return problems


def _duplicates(scans: Mapping[str, Scan]) -> list[Problem]:
    first: dict[bytes, tuple[str, Path]] = {}
    problems = []
    for split, scan in scans.items():
        for path in scan.pictures:
            if not path.is_file():
                continue
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
            other = first.setdefault(digest, (split, path))
            if other[1] == path:
                if other[0] != split:
                    what = f"is used in {other[0]} and {split}"
                    problems.append(Problem("duplicate", str(path), what, "keep it in one split"))
            elif other[0] != split:
                what = f"same content as {other[1]} of {other[0]}"
                problems.append(Problem("duplicate", str(path), what, "keep it in one split"))
            else:
                what = f"same content as {other[1]}"
                fix = "remove one of them"
                problems.append(Problem("repeated", str(path), what, fix, serious=False))
    return problems
