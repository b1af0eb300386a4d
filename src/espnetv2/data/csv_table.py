"""A table of pictures: a column with paths, one with a class or, for multi-label, `a|b`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnetv2.data.pictures import open_picture
from espnetv2.data.sample import Sample
from espnetv2.errors import UserError

_PATH_HEADS = ("path", "file", "filename", "image")
_LABEL_HEADS = ("label", "labels", "class", "classes")


class CsvTable:
    """`<split>.csv`, or any one CSV file with a column `split`; paths are relative to it.

    Args:
        classes: Names by index; those that occur in the split, sorted, by default.
        multilabel: Whether a picture has several classes, or none.

    Raises:
        UserError: No file, no such column or split, an empty label, or a name that is no class.
    """

    palette: tuple[tuple[int, int, int], ...] | None = None
    notes: Sequence[str] = ()

    def __init__(
        self,
        root: Path,
        split: str,
        classes: Sequence[str] | None = None,
        *,
        multilabel: bool = False,
    ) -> None:
        self.multilabel = multilabel
        table = table_file(root, split)
        self.rows: list[tuple[Path, tuple[str, ...]]] = []
        for line, path, labels in read_rows(table, split):
            if not multilabel and len(labels) != 1:
                raise UserError(
                    f"csv: line {line} of {table} has {len(labels)} labels; classification needs "
                    "one, or train with the task multilabel"
                )
            self.rows.append((path, labels))
        found = sorted({label for _, labels in self.rows for label in labels})
        self.classes = tuple(found if classes is None else classes)
        self.shown_classes = self.classes
        self._index = {name: index for index, name in enumerate(self.classes)}
        if stray := sorted(set(found) - set(self.classes)):
            raise UserError(
                f"csv: label {stray[0]!r} in {table} is none of the {len(self.classes)} classes "
                f"({', '.join(self.classes[:3])}, ...); mend the table or add the class"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        path, labels = self.rows[index]
        if not self.multilabel:
            return Sample(open_picture(path), self._index[labels[0]], path.stem)
        target = np.zeros(len(self.classes), dtype=np.float32)
        target[[self._index[label] for label in labels]] = 1
        return Sample(open_picture(path), target, path.stem)

    def counts(self, index: int, classes: int) -> Tensor:
        """Pictures per class."""
        found = torch.zeros(classes, dtype=torch.int64)
        found[[self._index[label] for label in self.rows[index][1]]] = 1
        return found


def table_file(root: Path, split: str) -> Path:
    """The CSV file of a split.

    Raises:
        UserError: Neither `<split>.csv` nor exactly one CSV file.
    """
    if root.is_file():
        return root
    if (path := root / f"{split}.csv").is_file():
        return path
    found = sorted(root.glob("*.csv")) if root.is_dir() else []
    if len(found) == 1:
        return found[0]
    beside = ", ".join(entry.name for entry in found) or "no CSV file"
    raise UserError(
        f"csv: no {split}.csv in {root}, which has {beside}; expected {split}.csv, or one file "
        "with a column 'split'"
    )


def read_rows(table: Path, split: str) -> list[tuple[int, Path, tuple[str, ...]]]:
    """Line number, picture and labels of a split's rows.

    Raises:
        UserError: The file cannot be read, a column is missing or no row is of this split.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            heads = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
            path_head = _head(heads, _PATH_HEADS, table)
            label_head = _head(heads, _LABEL_HEADS, table)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"csv: {table} cannot be read: {error}; save it as UTF-8") from error
    if table.stem != split:
        if "split" not in heads:
            raise UserError(f"csv: {table} has no column 'split'; add it, or write {split}.csv")
        known = sorted({row[heads["split"]] or "" for _, row in rows})
        rows = [(line, row) for line, row in rows if row[heads["split"]] == split]
        if not rows:
            raise UserError(f"csv: no row of {table} is of split {split!r}; it has {known}")
    if not rows:
        raise UserError(f"csv: {table} has no rows; write one picture a line")
    found = []
    for line, row in rows:
        labels = tuple(part.strip() for part in (row[label_head] or "").split("|"))
        found.append((line, table.parent / (row[path_head] or ""), tuple(filter(None, labels))))
    return found


def _head(heads: dict[str, str], wanted: Sequence[str], table: Path) -> str:
    for name in wanted:
        if name in heads:
            return heads[name]
    raise UserError(
        f"csv: {table} has no column {wanted[0]!r} (it has {', '.join(heads) or 'none'}); "
        "name the columns in the first line"
    )
