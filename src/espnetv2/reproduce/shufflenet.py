"""ShuffleNet v1: groups, shuffle, widths against MobileNet v1, and actual speed.

Paper: shufflenet Tables 1, 2, 3, 5 and 8.
"""

from __future__ import annotations

from typing import Any

import torch

from espnetv2.models.shufflenetv1 import shufflenetv1
from espnetv2.profiling.complexity import measure
from espnetv2.reproduce import counting, style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

GROUPS = (1, 2, 3, 4, 8)
MACS = {"x1_0": ("143 M", "140 M", "137 M", "133 M", "137 M"), "x0_5": ("38 M",) * 5}
MACS["x0_25"] = ("13 M",) * 5
ERRORS = {
    "x1_0": ("33.6", "32.7", "32.6", "32.8", "32.4"),
    "x0_5": ("45.1", "44.4", "43.2", "41.6", "42.3"),
    "x0_25": ("57.1", "56.8", "55.0", "54.2", "52.7"),
}
SHUFFLE = {
    ("x1_0", 3): ("34.5", "32.6"),
    ("x1_0", 8): ("37.6", "32.4"),
    ("x0_5", 3): ("45.7", "43.2"),
    ("x0_5", 8): ("48.1", "42.3"),
    ("x0_25", 3): ("56.3", "55.0"),
    ("x0_25", 8): ("56.5", "52.7"),
}
TRAIN = "espnetv2 train shufflenetv1 --data DATA/imagenet --set model="
SPEED = "benchmarks/results/shufflenet_{}.json"


def build_groups(sources: Sources) -> Report:
    """Tables 1 and 2: complexity and error by the number of groups."""
    rows: list[Row] = []
    series: dict[str, Any] = {}
    for width, printed in MACS.items():
        label = width[1:].replace("_", ".")
        for groups, macs, error in zip(GROUPS, printed, ERRORS[width], strict=True):
            name, what = f"shufflenetv1_g{groups}_{width}", f"{label}x, g = {groups}"
            note = "" if width == "x1_0" else "printed once for all groups, D20"
            row = counting.macs(name, macs, what, note=note)
            command = f"{TRAIN}{name}"
            rows += [row, needs(f"{what}, top-1 error", error, "ImageNet", command)]
            series.setdefault(f"{label}x", []).append(
                {"groups": groups, "macs": row.ours, "error": float(error)}
            )
    return Report(
        "shufflenet-groups",
        "ShuffleNet v1: groups",
        "shufflenet Tables 1 and 2",
        tuple(rows),
        (
            "At 0.5x and 0.25x the paper prints one figure for all groups, 38 M and 13 M; the "
            f"layout gives {_range(series['0.5x'])} and {_range(series['0.25x'])} "
            "([D20](deviations.md)).",
        ),
        series,
    )


def build_shuffle(sources: Sources) -> Report:
    """Table 3: with and without the shuffle; both cost the same."""
    rows: list[Row] = []
    for (width, groups), (without, with_shuffle) in SHUFFLE.items():
        name = f"shufflenetv1_g{groups}_{width}"
        what = f"{width[1:].replace('_', '.')}x, g = {groups}"
        rows += [
            Row(
                f"{what}, MACs without less with shuffle",
                "0",
                _unshuffled(groups, width) - counting.count(name).macs,
                "counted",
                name,
            ),
            needs(
                f"{what}, no shuffle, top-1 error",
                without,
                "ImageNet",
                f"{TRAIN}{name} --set options.shuffle=false",
            ),
            needs(f"{what}, shuffle, top-1 error", with_shuffle, "ImageNet", f"{TRAIN}{name}"),
        ]
    return Report("shufflenet-shuffle", "ShuffleNet v1: shuffle", "shufflenet Table 3", tuple(rows))


def build_widths(sources: Sources) -> Report:
    """Table 5: against MobileNet v1 at four complexities."""
    wide = measure(_with_excitation(), (224, 224))
    both = (("with the linear layer", wide.macs + wide.linear_macs),)
    rows: list[Row] = [
        counting.macs("shufflenetv1_g3_x2_0", "524 M", "ShuffleNet 2x, g = 3"),
        Row("ShuffleNet 2x, g = 3, SE, MACs", "527 M", wide.macs, "counted", others=both),
        counting.macs("shufflenetv1_g3_x1_5", "292 M", "ShuffleNet 1.5x, g = 3"),
        counting.macs("shufflenetv1_g8_x1_0", "137 M", "ShuffleNet 1x, g = 8"),
        counting.macs("mobilenet_v1_x1_0", "569 M", "MobileNet v1 1.0"),
        counting.macs("mobilenet_v1_x0_75", "325 M", "MobileNet v1 0.75"),
        counting.macs("mobilenet_v1_x0_5", "149 M", "MobileNet v1 0.5"),
        counting.macs("mobilenet_v1_x0_25", "41 M", "MobileNet v1 0.25"),
    ]
    errors = {
        "shufflenetv1_g3_x2_0": ("ShuffleNet 2x, g = 3", "26.3", ""),
        "shufflenetv1_g3_x2_0 ": (
            "ShuffleNet 2x, g = 3, SE",
            "24.7",
            "--set options.squeeze_excitation=true",
        ),
        "shufflenetv1_g3_x1_5": ("ShuffleNet 1.5x, g = 3", "28.5", ""),
    }
    rows += [
        needs(f"{what}, top-1 error", error, "ImageNet", f"{TRAIN}{name.strip()} {extra}".strip())
        for name, (what, error, extra) in errors.items()
    ]
    return Report(
        "shufflenet-widths",
        "ShuffleNet v1 against MobileNet v1",
        "shufflenet Table 5",
        tuple(rows),
        ("This paper's complexities hold the linear layer where ESPNetv2's do not.",),
    )


def build_speed(sources: Sources) -> Report:
    """Table 8: what four times fewer multiply-adds bring in practice."""
    printed = {"x0_5": 15.2, "x1_0": 37.8, "x2_0": 108.8}
    rows: list[Row] = []
    series: dict[str, Any] = {"paper, ARM": printed}
    for engine in ("onnxruntime", "native"):
        for width, paper in printed.items():
            rows.append(_time(sources, f"shufflenetv1_g3_{width}", engine, str(paper)))
            if rows[-1].ours is not None:
                series.setdefault(f"here, {engine}", {})[width] = rows[-1].ours
    rows.append(_time(sources, "mobilenet_v1_x1_0", "onnxruntime", "110.0"))
    for engine, times in series.items():
        if len(times) == len(printed):
            rows += _gains(engine, times)
    return Report(
        "shufflenet-speed",
        "ShuffleNet v1: actual speed",
        "shufflenet Table 8 and sec. 4.5",
        tuple(rows),
        (
            "The paper's milliseconds are of one thread of a phone's ARM processor, ours of one "
            "thread of the machine named in the file; gains are compared, times are not.",
        ),
        series,
    )


def draw_groups(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Printed errors by groups, counted costs beside them."""
    drawn = style.figure(9, 3.2)
    left, right = drawn.subplots(1, 2)
    for (width, points), colour in zip(document["series"].items(), style.CYCLE, strict=False):
        groups = [str(point["groups"]) for point in points]
        for axis, key, scale in ((left, "error", 1.0), (right, "macs", 1e6)):
            values = [point[key] / scale for point in points]
            axis.plot(groups, values, "o-", color=colour, lw=1.8, label=width)
    style.panel(left, "Top-1 error, % (the paper's)", x="groups")
    style.panel(right, "Multiply-adds, millions (counted)", x="groups")
    style.legend(left, loc="upper right", ncols=3)
    left.set_ylim(30, 64)
    right.set_ylim(0)
    return drawn


def draw_speed(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """Times relative to 2x; the theory is its share of multiply-adds."""
    drawn = style.figure(6.4, 3.6)
    axis = drawn.subplots()
    widths = ("x0_5", "x1_0", "x2_0")
    costs = [counting.count(f"shufflenetv1_g3_{width}").macs for width in widths]
    axis.plot([1, 2, 4], [c / costs[0] for c in costs], "k--", lw=1.2, label="multiply-adds")
    for (name, times), colour in zip(document["series"].items(), style.CYCLE, strict=False):
        values = [times[width] / times["x0_5"] for width in widths]
        axis.plot([1, 2, 4], values, "o-", color=colour, lw=1.8, label=name)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.set_xticks([1, 2, 4], ["0.5x", "1x", "2x"])
    axis.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    style.panel(axis, "Time relative to ShuffleNet 0.5x (g = 3)", x="width", grid="both")
    style.legend(axis, loc="upper left")
    return drawn


def _range(points: list[dict[str, Any]]) -> str:
    values = [point["macs"] / 1e6 for point in points]
    return f"{min(values):.1f} to {max(values):.1f} M"


def _unshuffled(groups: int, width: str) -> int:
    factor = float(width[1:].replace("_", "."))
    with torch.device("meta"):
        return measure(shufflenetv1(groups, factor, shuffle=False), (224, 224)).macs


def _with_excitation() -> torch.nn.Module:
    with torch.device("meta"):
        return shufflenetv1(3, 2.0, squeeze_excitation=True)


def _time(sources: Sources, name: str, engine: str, printed: str) -> Row:
    file = SPEED.format(engine)
    models = [row["model"] for row in sources.recorded(f"{file}#rows") or []]
    place = models.index(name) if name in models else 0
    return sources.committed(
        Row(
            f"{name}, {engine}",
            printed,
            None,
            "measured here",
            f"{file}#rows/{place}/ms_min",
            unit="ms",
            comparable=False,
        )
    )


def _gains(engine: str, times: dict[str, float]) -> list[Row]:
    """How much faster for each fourfold saving; the paper says about 2.6."""
    if engine.startswith("paper"):
        return []
    return [
        Row(
            f"times faster for 4 times less, {small} against {large}, {engine}",
            "2.6",
            times[large] / times[small],
            "measured here",
            SPEED.format(engine.rpartition(" ")[2]),
        )
        for small, large in (("x0_5", "x1_0"), ("x1_0", "x2_0"))
    ]
