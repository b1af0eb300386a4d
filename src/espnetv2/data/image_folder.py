"""A folder per class: the simplest classification set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from espnetv2.data import imagenet
from espnetv2.data.pictures import is_picture, open_picture
from espnetv2.data.sample import Sample, folder
from espnetv2.errors import UserError


class ImageFolder:
    """Pictures in `<root>/<class>/`, at any depth below; classes are the sorted folder names.

    Args:
        root: The folder of class folders.
        classes: The classes of a network that is to be judged on this set; targets are then
            its indices. Folders are matched by name, or by WordNet id for ImageNet's 1000.

    Raises:
        UserError: No class folders, one without pictures, or one that matches no class.
    """

    palette: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | None = None
    groups: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def __init__(self, root: Path, classes: Sequence[str] | None = None) -> None:
        names = _class_folders(root)
        indices = list(range(len(names))) if classes is None else match_classes(names, classes)
        self.classes = tuple(names if classes is None else classes)
        self.scored = len(self.classes)
        self.files: list[tuple[Path, int]] = []
        for name, index in zip(names, indices, strict=True):
            found = sorted(
                path
                for path in (root / name).rglob("*")
                if is_picture(path) and not path.name.startswith(".")
            )
            if not found:
                raise UserError(f"imagefolder: no pictures in {root / name}; remove it or fill it")
            self.files += [(path, index) for path in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path, target = self.files[index]
        return Sample(open_picture(path), target, f"{path.parent.name}/{path.stem}")


def read(root: Path, split: str, *, classes: Sequence[str] | None = None) -> ImageFolder:
    """One split: `<root>/<split>/<class>/*`."""
    return ImageFolder(folder(root / split, what="imagefolder"), classes)


def match_classes(folders: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The index in `classes` of each folder name; case and underscores do not matter.

    >>> match_classes(["Traffic_Light", "car"], ["car", "bus", "traffic light"])
    [2, 0]

    Raises:
        UserError: A folder matches no class; names it.
    """
    if len(classes) == 1000 and all(map(imagenet.is_wordnet_id, folders)):
        found = imagenet.indices(folders)
    else:
        if all(map(imagenet.is_wordnet_id, folders)) and not any(
            map(imagenet.is_wordnet_id, classes)
        ):  # a network trained here names its classes in words
            words, known = imagenet.classes(), imagenet.indices(folders)
            pairs = zip(folders, known, strict=True)
            folders = [name if index is None else words[index] for name, index in pairs]
        plain = [_plain(name) for name in classes]
        # a name that two classes share decides nothing
        by_name = {name: index for index, name in enumerate(plain) if plain.count(name) == 1}
        found = [by_name.get(_plain(name)) for name in folders]
    for name, index in zip(folders, found, strict=True):
        if index is None:
            some = ", ".join(classes[:3])
            raise UserError(
                f"imagefolder: folder {name!r} is none of the network's {len(classes)} classes "
                f"({some}, ...); rename the folder or use a network trained on it"
            )
    return [index for index in found if index is not None]


def _class_folders(root: Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in folder(root, what="imagefolder").iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise UserError(f"imagefolder: no class folders in {root}; expected <class>/*.jpg")
    return names


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
