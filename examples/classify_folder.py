"""Name what is in every picture of a folder, and write a table.

python examples/classify_folder.py PICTURES [--weights NAME|FILE] [--out answers.csv]

The network that comes with the package knows ten things; give weights of your own for yours.
"""

import argparse
import csv
from pathlib import Path

import espnetv2
from espnetv2.data.pictures import is_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", default="espnetv2_s0_5.imagenette")
    parser.add_argument("--out", type=Path, default=Path("answers.csv"))
    arguments = parser.parse_args()

    classifier = espnetv2.load(arguments.weights, top=2)
    files = sorted(path for path in arguments.pictures.rglob("*") if is_picture(path))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "score", "second"])
        for start in range(0, len(files), 16):  # equally large inputs go through as one batch
            batch = files[start : start + 16]
            for path, found in zip(batch, classifier.predict(batch), strict=True):
                writer.writerow([path, found.labels[0], f"{found.scores[0]:.3f}", found.labels[1]])
    print(f"{len(files)} pictures, answers in {arguments.out}")


if __name__ == "__main__":
    main()
