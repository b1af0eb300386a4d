"""Writes docs/reproduction.md from results/reproduce_*.json, and takes over a new run.

    python tools/write_reproduction.py                  the page alone
    python tools/write_reproduction.py --from DIR       first takes over what
                                                        `espnetv2 reproduce all --out DIR` wrote

`make reproduction` does both.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from espnetv2.reproduce.catalog import CATALOG
from espnetv2.reproduce.report import markdown, summary

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIGURES = ROOT / "results", ROOT / "docs" / "figures"
PAGE = ROOT / "docs" / "reproduction.md"
OPENING = """# Reproduction

Every table and figure of the ESPNetv2 paper (arXiv v1), what the CVPR version adds, the published
rows of ESPNet v1 and the tables of ShuffleNet v1, with our value beside each. This page is written
by `tools/write_reproduction.py` from the files `results/reproduce_*.json`; nothing on it is typed
by hand.

```
espnetv2 reproduce                        # the list
espnetv2 reproduce table2 gridding        # two of them
espnetv2 reproduce all --out DIR          # all; JSON, Markdown and figures too
```

`--data FOLDER` (or the variable `ESPNETV2_DATA`) names a folder of data sets: `FOLDER/camvid`,
`FOLDER/voc`, `FOLDER/imagenet`, `FOLDER/cityscapes`, `FOLDER/coco`, `FOLDER/VOCdevkit`, as in
[datasets.md](datasets.md). Released weights are judged on those that are there; the others keep
what is on record, or show the command. Without `--data` nothing is downloaded.

The column *gap* says "equal" where our value comes back to the last digit that the paper prints,
and under which way of counting ([D95](deviations.md)). How ours came to be is one of

- *counted*: parameters, multiply-adds, receptive fields, learning rates, computed on the spot;
- *official weights on real data*: the released file, judged under the named protocol;
- *trained here at small scale*: a committed run, linked;
- *measured here*: a committed measurement, linked, with its machine in the file;
- *needs ...*: nobody has run it here; the command that would.

"""


def page(folder: Path = RESULTS) -> str:
    """The page that belongs to the files of a folder."""
    documents = [read(folder, name) for name in CATALOG]
    sections = [OPENING, f"{summary(documents)}.\n\n"]
    for document in documents:
        sections.append(markdown(document, up="../"))
        figure = FIGURES / f"reproduce_{document['name']}.png"
        if figure.is_file():
            sections.append(f"![{document['title']}](figures/{figure.name})\n\n")
    return "".join(sections).rstrip() + "\n"


def read(folder: Path, name: str) -> dict[str, Any]:
    """One report of the committed run."""
    path = folder / f"reproduce_{name}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def take_over(folder: Path) -> None:
    """Copy JSON to results/ and figures to docs/figures/."""
    for path in sorted(folder.glob("reproduce_*.json")):
        shutil.copyfile(path, RESULTS / path.name)
    for path in sorted((*folder.glob("reproduce_*.png"), *folder.glob("reproduce_*.svg"))):
        shutil.copyfile(path, FIGURES / path.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path)
    folder = parser.parse_args().folder
    if folder is not None:
        take_over(folder)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
