"""Names in the released ESPNetv2-SSD files (EdgeNets) beside ours, the backbone's left out.

A pair maps a module of theirs to a module of ours; the last part of a key (`weight`,
`running_mean` ...) is the same on both sides. `{i}` stands for an index. The backbone's names are
the classifier's, behind `base_net.basenet.` in the file and behind `backbone.` here.
"""

from __future__ import annotations

from espnetv2.weights.espnetv2_keys import Patterns, conv_norm_act, pyramid

PATTERNS: Patterns = (
    *conv_norm_act("base_net.extra_level6.layer.{i}", "extras.0.{i}"),
    *conv_norm_act("base_net.extra_level7.layer.{i}", "extras.1.{i}"),
    ("base_net.extra_level8.1", "extras.2.1"),
    *pyramid("base_net.bu_3x3_5x5", "pyramid.0"),
    *pyramid("base_net.bu_5x5_10x10", "pyramid.1"),
    *pyramid("base_net.bu_10x10_19x19", "pyramid.2"),
    *pyramid("base_net.bu_19x19_38x38", "pyramid.3"),
    ("loc_layers.{i}", "heads.{i}.offsets"),
    ("cls_layers.{i}", "heads.{i}.scores"),
)
"""Extras, top-down path and heads."""
