"""Fine-tune a segmenter on your own pictures and masks, and look at the first validation picture.

python examples/finetune_segmenter.py SCENES [--out RUN] [--epochs 10]

SCENES holds images/{train,val}/* beside masks/{train,val}/*.png, one grey value a class, 255 for
what nobody knows; names may stand in SCENES/data.yaml. The same as `espnetv2 train segment`, from
Python.
"""

import argparse
from pathlib import Path

from PIL import Image

import espnetv2
from espnetv2.training.fit import train
from espnetv2.training.recipe import load_recipe
from espnetv2.training.trainer import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()

    recipe = load_recipe(
        "segment",
        changes=[
            "weights=espnetv2_seg_s0_5.camvid",  # what fits is kept, a new head starts fresh
            f"epochs={arguments.epochs}",
            f"data.size=[{arguments.size}, {arguments.size}]",
            "schedule.rate=0.002",
        ],
    )
    summary = train(recipe, Run(data=arguments.scenes, out=arguments.out))
    print({name: round(value, 2) for name, value in summary["metrics"].items()})

    first = sorted((arguments.scenes / "images" / "val").iterdir())[0]
    picture = Image.open(first).convert("RGB")
    result = espnetv2.load(arguments.out / "model.safetensors")(picture)
    result.draw(picture).save(arguments.out / "first.jpg")
    print(f"{first.name}: {result.shares}")


if __name__ == "__main__":
    main()
