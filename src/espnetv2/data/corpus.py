"""Text for language models: three files of words, as numbers in rows and segments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from espnetv2.errors import UserError

END = "<eos>"
"""Stands at the end of every line, and is predicted like a word."""

UNKNOWN = "<unk>"
"""Stands for a word that the training text lacks."""

SHORTEST = 5
"""Words of the shortest segment."""

SPREAD = 5.0
"""Standard deviation of a segment's length, in words."""

FULL_SHARE = 0.95
"""How often a segment has the full base length; else half of it."""

NAMES = (
    ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    ("train.txt", "valid.txt", "test.txt"),
    ("train.txt", "val.txt", "test.txt"),
)
"""File names looked for, in this order: Penn Treebank, WikiText, one's own."""


@dataclass(frozen=True)
class Corpus:
    """A text in three parts.

    Attributes:
        words: Word of each number, by first appearance in the training text.
        train: (N,) int64, numbers of the training text.
        valid: The same of the validation text.
        test: The same of the test text.
    """

    words: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor


def read_corpus(root: Path) -> Corpus:
    """Read three UTF-8 text files: `ptb.{train,valid,test}.txt` and the like (`NAMES`).

    Words are what white space separates; every line ends with `<eos>`. The vocabulary is that
    of the training text in the order of first appearance, and `<unk>`, which stands last if the
    training text lacks it. Unknown words of the other texts become `<unk>`.

    Paper: awdlstm sec. 4.

    Raises:
        UserError: A file is missing, empty or not UTF-8.
    """
    train, *others = (_read(path) for path in find_texts(root))
    words = dict.fromkeys(train)
    words.setdefault(UNKNOWN)
    numbers = {word: number for number, word in enumerate(words)}
    valid, test = (encode(text, numbers) for text in others)
    return Corpus(tuple(words), encode(train, numbers), valid, test)


def find_texts(root: Path) -> tuple[Path, ...]:
    """The training, validation and test file of a folder.

    Raises:
        UserError: The folder or one of the files is missing.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the one that holds train.txt and so on")
    for names in NAMES:
        paths = tuple(root / name for name in names)
        if all(path.is_file() for path in paths):
            return paths
    present = max(NAMES, key=lambda names: sum((root / name).is_file() for name in names))
    if missing := [name for name in present if not (root / name).is_file()]:
        lacking = NAMES[2] if len(missing) == len(present) else missing
        raise UserError(f"{root}: lacks {', '.join(lacking)} (a text is three files)")
    raise AssertionError("a complete set was returned above")


def encode(text: Iterable[str], numbers: Mapping[str, int]) -> Tensor:
    """Numbers (N,) int64 of words; of `<unk>` for those without."""
    unknown = numbers[UNKNOWN]
    return torch.tensor([numbers.get(word, unknown) for word in text], dtype=torch.int64)


def batchify(tokens: Tensor, batch: int) -> Tensor:
    """Cut a text into `batch` equal pieces, read side by side.

    The words at the end that would not fill a row are left out, fewer than `batch`.

    Shape: (N,) -> (N // batch, batch)

    Raises:
        UserError: The text has fewer than two words for each piece.

    >>> batchify(torch.arange(7), 2)
    tensor([[0, 3],
            [1, 4],
            [2, 5]])
    """
    rows = len(tokens) // batch
    if rows < 2:
        raise UserError(f"a text of {len(tokens)} words is too short for a batch of {batch}")
    return tokens[: rows * batch].view(batch, rows).t().contiguous()


def segments(rows: int, *, bptt: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """Cut rows into segments of random length for one epoch of truncated back-propagation.

    The base length is `bptt`, or with probability 0.05 half of it; the length is normal around
    it with deviation 5, at least 5. A function of `seed` and `epoch` alone.

    Paper: awdlstm sec. 5.

    Args:
        rows: Of the text as `batchify` gives it; the last is only predicted.

    Returns:
        First row and number of rows of each segment. Together they predict every row but the
        first; a remainder that is too short for a segment belongs to the last one (D80).
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    found, start, end = [], 0, rows - 1
    while start < end:
        full = float(torch.rand((), generator=generator)) < FULL_SHARE
        drawn = float(torch.randn((), generator=generator)) * SPREAD + (bptt if full else bptt / 2)
        length = max(SHORTEST, int(drawn))
        if end - start - length < SHORTEST:
            length = end - start
        found.append((start, length))
        start += length
    return found


def regular_segments(rows: int, *, bptt: int) -> list[tuple[int, int]]:
    """Cut rows into segments of `bptt` for evaluation; the last may be shorter.

    >>> regular_segments(8, bptt=3)
    [(0, 3), (3, 3), (6, 1)]
    """
    return [(start, min(bptt, rows - 1 - start)) for start in range(0, rows - 1, bptt)]


def _read(path: Path) -> list[str]:
    words: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                words.extend(line.split())
                words.append(END)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from error
    if all(word == END for word in words):
        raise UserError(f"{path}: holds no words; put text into it, a sentence per line")
    return words
