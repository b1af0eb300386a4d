"""Names in the released ESPNetv2-SSD files (EdgeNets) beside ours, the backbone's left out.

A pair maps a module of theirs to a module of ours; the last part of a key (`weight`,
`running_mean` ...) is the same on both sides. `{i}` stands for an index. The backbone's names are
the classifier's, behind `base_net.basenet.` in the file and behind `backbone.` here.
"""

from __future__ import annotations


def _conv_norm_act(official: str, ours: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{official}.cbr.0", f"{ours}.conv"),
        (f"{official}.cbr.1", f"{ours}.norm"),
        (f"{official}.cbr.2", f"{ours}.act"),
    )


def _pyramid(official: str, ours: str) -> tuple[tuple[str, str], ...]:
    """One pyramid pooling."""
    return (
        (f"{official}.stages.{{i}}", f"{ours}.branches.{{i}}"),
        *_conv_norm_act(f"{official}.projection_layer", f"{ours}.reduce"),
        (f"{official}.merge_layer.0.br.0", f"{ours}.fuse.norm"),
        (f"{official}.merge_layer.0.br.1", f"{ours}.fuse.act"),
        *_conv_norm_act(f"{official}.merge_layer.2", f"{ours}.mix"),
        (f"{official}.merge_layer.3", f"{ours}.project"),
        (f"{official}.br.br.0", f"{ours}.out.norm"),
        (f"{official}.br.br.1", f"{ours}.out.act"),
    )


PATTERNS: tuple[tuple[str, str], ...] = (
    *_conv_norm_act("base_net.extra_level6.layer.{i}", "extras.0.{i}"),
    *_conv_norm_act("base_net.extra_level7.layer.{i}", "extras.1.{i}"),
    ("base_net.extra_level8.1", "extras.2.1"),
    *_pyramid("base_net.bu_3x3_5x5", "pyramid.0"),
    *_pyramid("base_net.bu_5x5_10x10", "pyramid.1"),
    *_pyramid("base_net.bu_10x10_19x19", "pyramid.2"),
    *_pyramid("base_net.bu_19x19_38x38", "pyramid.3"),
    ("loc_layers.{i}", "heads.{i}.offsets"),
    ("cls_layers.{i}", "heads.{i}.scores"),
)
"""Extras, top-down path and heads."""
