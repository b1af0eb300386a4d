"""Looking through pictures with masks without stopping at the first fault."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from espnetv2.data import camvid, cityscapes, mask_folder, voc, voc_augmented
from espnetv2.data.sample import folder, pictures_in
from espnetv2.data.scans import Scan, Tick


def scan_masks(format: str, root: Path, split: str, tick: Tick) -> Scan:
    """Pictures with masks, of any layout."""
    scan = Scan()
    pairs, names = _mask_pairs(format, root, split, scan)
    values: Counter[int] = Counter()
    for done, (picture, mask) in enumerate(pairs, start=1):
        image = scan.open(picture)
        labels = _mask(mask, scan)
        if image is not None and labels is not None and labels.shape[::-1] != image.size:
            scan.add(
                "size",
                mask,
                f"mask is {labels.shape[1]}x{labels.shape[0]}, the picture "
                f"{image.width}x{image.height}",
                "export it at the picture's size (resize with nearest only)",
            )
        if labels is not None:
            levels, pixels = np.unique(labels, return_counts=True)
            values.update(dict(zip(levels.tolist(), pixels.tolist(), strict=True)))
            stray = [level for level in levels.tolist() if names and level not in names]
            if stray:
                scan.add(
                    "stray-label",
                    mask,
                    f"label {', '.join(map(str, stray[:5]))} is no class",
                    "relabel those pixels (255 for unlabelled) or list the value in data.yaml",
                )
        tick(done, len(pairs))
    if set(values) == {0, 255} and (not names or names.get(255) is None):
        scan.add(
            "black-and-white",
            pairs[0][1].parent,
            "masks hold only 0 and 255, and 255 means ignored",
            "write data.yaml with 'classes: {0: background, 255: object}'",
        )
    found = sorted(set(values) - {mask_folder.IGNORE})
    if not names and found and found != list(range(found[-1] + 1)) and len(set(values)) > 2:
        scan.add(
            "label-gap",
            pairs[0][1].parent,
            f"{len(found)} labels up to {found[-1]}, so {found[-1] + 1} classes would be made",
            "list the real values in data.yaml ('classes: {0: sky, 37: road}')",
        )
    for value, count in values.items():
        name = names.get(value) if names else f"class {value}"
        if name is not None and not (not names and value == mask_folder.IGNORE):
            scan.counts[name] += count
    for name in names.values():
        if name is not None:
            scan.counts.setdefault(name, 0)
    return scan


def _mask_pairs(
    format: str, root: Path, split: str, scan: Scan
) -> tuple[list[tuple[Path, Path]], dict[int, str | None]]:
    """Pairs, and class by grey value: None for unlabelled, an empty dict where none is known."""
    if format == "cityscapes":
        known = cityscapes.RAW_TO_TRAIN
        raw = {value: int(known[value]) for value in (*range(34), 255)}
        names = {
            v: cityscapes.CLASSES[t] if t != cityscapes.IGNORE else None for v, t in raw.items()
        }
        return cityscapes.read(root, split).pairs, names
    if format == "voc-seg":
        return voc_augmented.read(root, split).pairs, {**dict(enumerate(voc.CLASSES)), 255: None}
    if format == "camvid":
        named: dict[int, str | None] = dict(enumerate(camvid.CLASSES))
        named[camvid.IGNORE] = None
        return _by_stem(root / "images" / split, root / "labels" / split, scan), named
    layout = mask_folder.read_layout(root)
    masks = mask_folder.mask_root(root, layout)
    pairs = _by_stem(root / layout.images / split, masks / split, scan)
    if layout.names is None:
        return pairs, {}
    return pairs, {**dict.fromkeys(layout.ignore), **layout.names}


def _by_stem(images: Path, masks: Path, scan: Scan) -> list[tuple[Path, Path]]:
    pictures = pictures_in(images, what="masks")
    pairs = []
    for picture in pictures:
        mask = masks / f"{picture.stem}.png"
        if mask.is_file():
            pairs.append((picture, mask))
        else:
            scan.add("no-mask", picture, f"no mask {mask}", "draw it or remove the picture")
    stems = {picture.stem for picture in pictures}
    for mask in sorted(folder(masks, what="masks").glob("*.png")):
        if mask.stem not in stems:
            what = "mask without a picture"
            scan.add("no-picture", mask, what, "add the picture or remove it", serious=False)
    return pairs


def _mask(path: Path, scan: Scan) -> np.ndarray | None:
    try:
        with Image.open(path) as image:
            if image.mode in ("L", "P", "1"):
                return np.array(image, dtype=np.uint8)
            mode = image.mode
    except Exception as error:  # a damaged file raises anything in the decoders
        reason = " ".join(str(error).split()) or type(error).__name__
        scan.add("unreadable", path, f"mask cannot be read ({reason})", "export it again")
        return None
    scan.add(
        "mask-mode",
        path,
        f"mask is of mode {mode}, with colours instead of class numbers",
        "export masks with one grey or palette value a class (mode L or P)",
    )
    return None
