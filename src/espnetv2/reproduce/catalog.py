"""Every table and figure by name. Importing this imports no torch and no matplotlib."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from espnetv2.errors import unknown

if TYPE_CHECKING:
    from espnetv2.reproduce.report import Report
    from espnetv2.reproduce.sources import Sources


@dataclass(frozen=True)
class Item:
    """A table or figure.

    Attributes:
        module: File of this folder.
        build: Its function that makes the report.
        draw: Its function that draws the figure of a report; empty where there is none.
        title: One line for the list.
    """

    module: str
    build: str
    draw: str
    title: str

    def report(self, sources: Sources) -> Report:
        """Compute it."""
        return self._function(self.build)(sources)  # type: ignore[no-any-return]

    def figure(self, report: Report) -> Any:
        """A matplotlib figure, or None where there is nothing to draw."""
        if not self.draw or not _drawable(report):
            return None
        return self._function(self.draw)(report.to_json(), report.arrays)

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(
            import_module(f"espnetv2.reproduce.{self.module}"), name
        )
        return function


CATALOG: dict[str, Item] = {
    "table1": Item("table1", "build", "draw", "kinds of convolution, EESP against ESP"),
    "table2": Item("table2", "build", "", "the six ESPNetv2 networks"),
    "table3": Item("table3", "build", "draw", "language models on the Penn Treebank"),
    "table4": Item("table4", "build", "", "fusion, image shortcut, schedule"),
    "table5": Item("table5", "build", "", "grouped and plain point-wise convolutions"),
    "eq1": Item("schedules", "build_eq1", "", "the cyclic learning rate"),
    "fig3": Item("fig3", "build", "draw", "ImageNet accuracy against multiply-adds"),
    "fig4": Item("schedules", "build_fig4", "draw_fig4", "warm restarts, paper and code"),
    "fig5": Item("fig5", "build", "draw", "time and power of a picture"),
    "fig6": Item("fig6", "build", "draw", "several labels a picture on COCO"),
    "fig7": Item("fig7", "build", "draw", "segmentation of Cityscapes"),
    "fig8": Item("schedules", "build_fig8", "draw_fig8", "fixed and cyclic schedules"),
    "convolutions": Item("convolutions", "build", "draw", "convolution types (CVPR)"),
    "voc": Item("voc", "build", "draw", "segmentation of PASCAL VOC 2012 (CVPR)"),
    "detection": Item("detection", "build", "", "ESPNetv2-SSD on VOC and COCO (CVPR)"),
    "receptive-field": Item("receptive_field", "build", "draw", "theory and gradient"),
    "gridding": Item("gridding", "build", "draw", "holes of dilated convolutions, and fusion"),
    "espnet": Item("espnet", "build", "draw", "ESPNet v1: sizes, CamVid, Cityscapes"),
    "shufflenet-groups": Item("shufflenet", "build_groups", "draw_groups", "ShuffleNet v1: groups"),
    "shufflenet-shuffle": Item("shufflenet", "build_shuffle", "", "ShuffleNet v1: shuffle"),
    "shufflenet-widths": Item("shufflenet", "build_widths", "", "ShuffleNet v1: MobileNet v1"),
    "shufflenet-speed": Item("shufflenet", "build_speed", "draw_speed", "ShuffleNet v1: speed"),
}
"""In the order in which `all` prints them."""


def chosen(names: list[str]) -> list[str]:
    """The names asked for, once each; "all" is every one.

    Raises:
        UserError: An unknown name; the closest is offered.
    """
    for name in names:
        if name != "all" and name not in CATALOG:
            raise unknown("table or figure", name, [*CATALOG, "all"])
    return list(CATALOG) if "all" in names else list(dict.fromkeys(names))


def _drawable(report: Report) -> bool:
    """A figure of values that are not at hand would be empty."""
    return all(value not in (None, {}, []) for value in report.series.values())
