"""Figure 5: time and power of a picture at about 300 million multiply-adds.

Paper: espnetv2 Fig. 5, sec. 4.1; the values are in a drawing only.
"""

from __future__ import annotations

from typing import Any

from espnetv2.reproduce import style
from espnetv2.reproduce.report import Report
from espnetv2.reproduce.row import Row
from espnetv2.reproduce.sources import Sources, needs

FILE = "benchmarks/results/native_classifier.json"
NAMES = {
    "espnetv2_s2_0": "ESPNetv2 s = 2.0",
    "mobilenet_v2_x1_0": "MobileNetv2",
    "shufflenet_v2_x1_5": "ShuffleNetv2 1.5x",
}
RUNTIMES = ("onnx", "openvino", "ncnn")
WATTS = {
    "ESPNetv2": "2.2-2.9",
    "MobileNetv1": "5.6",
    "MobileNetv2": "5.3-5.5",
    "ShuffleNetv1": "5.0",
    "ShuffleNetv2": "5.5-5.7",
}


def build(sources: Sources) -> Report:
    """Milliseconds from the committed measurement; watts need the device."""
    rows: list[Row] = []
    series: dict[str, dict[str, Any]] = {}
    kinds = [(name, f"{runtime} deploy") for runtime in RUNTIMES for name in NAMES]
    for name, kind in [*kinds, ("espnetv2_s2_0", "native fp32")]:
        evidence = f"{FILE}#rows/{name} {kind}/ms_min"
        what = f"{NAMES[name]}, {kind.split()[0]}"
        row = sources.committed(Row(what, "", None, "measured here", evidence, unit="ms"))
        rows.append(row)
        if row.ours is not None:
            series.setdefault(kind.split()[0], {})[NAMES[name]] = row.ours
    command = (
        "espnetv2 benchmark espnetv2_s2_0 --against mobilenet_v1_x0_75,mobilenet_v2_x1_0,"
        "shufflenetv1_g3_x1_5,shufflenet_v2_x1_5 --size 224x224 --energy"
    )
    rows += [
        needs(f"{name}, watts", f"about {watts}", "a Jetson TX2 or another board", command)
        for name, watts in WATTS.items()
    ]
    return Report(
        "fig5",
        "Time and power at about 300 million multiply-adds",
        "espnetv2 Fig. 5",
        tuple(rows),
        (_machine(sources), *_ratios(series)),
        {"ms": series},
    )


def draw(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    """A group of bars a runtime, our engine last."""
    drawn = style.figure(7.6, 4)
    axis = drawn.subplots()
    colours = dict(zip(NAMES.values(), (style.BLUE, style.GREY, style.ORANGE), strict=True))
    names, values, tints = [], [], []
    for runtime, times in document["series"]["ms"].items():
        for name, value in times.items():
            names.append(f"{name}, {runtime}")
            values.append(value)
            tints.append(colours[name])
    style.bars(axis, names, values, colours=tints, form="{:.1f}")
    style.panel(axis, "Milliseconds a picture, 224x224, minimum", grid="x")
    return drawn


def _machine(sources: Sources) -> str:
    seen = sources.recorded(FILE)
    where = "The repository has the measurement."
    if seen is not None:
        where = (
            f"Minima of {seen['rounds']} rounds on {seen['threads']} threads of "
            f"{seen['processor']}, {seen['date']}, in single precision."
        )
    paper = "The paper times a GTX 1080 Ti and prints no number; watts are read off a figure."
    return f"{paper} {where}"


def _ratios(series: dict[str, dict[str, Any]]) -> list[str]:
    """The paper: slightly slower than the fastest, ShuffleNetv2."""
    own, other = NAMES["espnetv2_s2_0"], NAMES["shufflenet_v2_x1_5"]
    found = [
        f"{times[own] / times[other]:.2f} in {runtime}"
        for runtime, times in series.items()
        if own in times and other in times
    ]
    if not found:
        return []
    text = "Time of ESPNetv2 over ShuffleNetv2's, which the paper calls slightly above 1: "
    text += ", ".join(found)
    if "native" in series:
        best = min(times[other] for times in series.values() if other in times)
        text += f"; {series['native'][own] / best:.2f} with our engine against its fastest runtime"
    return [f"{text}."]
