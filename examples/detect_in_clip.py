"""Detect objects in a clip: drawn boxes in a new clip, and how long each thing was in sight.

python examples/detect_in_clip.py WEIGHTS CLIP [--out boxes.mp4] [--score 0.4]

WEIGHTS is a detector: a published name such as espnetv2_ssd300_s2_0.edgenets_coco, or the
model.safetensors of `espnetv2 train detect`.
"""

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path

import espnetv2
from espnetv2.predict.video import VideoReader, VideoWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("clip")
    parser.add_argument("--out", type=Path, default=Path("boxes.mp4"))
    parser.add_argument("--score", type=float, default=0.4)
    parser.add_argument("--frames", type=int, help="Only the first ones.")
    arguments = parser.parse_args()

    detector = espnetv2.load(arguments.weights, score=arguments.score)
    seen, frames = Counter(), 0
    with (
        VideoReader(arguments.clip) as reader,
        VideoWriter(arguments.out, rate=reader.rate) as writer,
    ):
        for frame in islice(reader, arguments.frames):
            found = detector(frame)
            seen.update({found.classes[label] for label in found.labels.tolist()})
            writer.write(found.draw(frame))
            frames += 1
    for name, count in seen.most_common():
        print(f"{name}: {count / float(reader.rate):.1f} s")
    print(f"{frames} frames, drawn in {arguments.out}")


if __name__ == "__main__":
    main()
