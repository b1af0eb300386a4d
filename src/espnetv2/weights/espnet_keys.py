"""Names in the released ESPNet v1 files beside ours.

A pair maps a module of theirs to a module of ours; the last part of a key (`weight`,
`running_mean` ...) is the same on both sides. `{i}` stands for an index. The files are older than
`num_batches_tracked` and do not have it.
"""

from __future__ import annotations


def _esp(official: str, ours: str, *, norm: str, act: str) -> tuple[tuple[str, str], ...]:
    """One ESP unit; `norm` and `act` are what the official unit calls its last two layers."""
    return (
        (f"{official}.c1.conv", f"{ours}.reduce"),
        (f"{official}.d1.conv", f"{ours}.branches.0"),
        (f"{official}.d2.conv", f"{ours}.branches.1"),
        (f"{official}.d4.conv", f"{ours}.branches.2"),
        (f"{official}.d8.conv", f"{ours}.branches.3"),
        (f"{official}.d16.conv", f"{ours}.branches.4"),
        (f"{official}.{norm}", f"{ours}.out.norm"),
        (f"{official}.{act}", f"{ours}.out.act"),
    )


ENCODER_PATTERNS: tuple[tuple[str, str], ...] = (
    ("level1.conv", "backbone.stem.conv"),
    ("level1.bn", "backbone.stem.norm"),
    ("level1.act", "backbone.stem.act"),
    ("b1.bn", "backbone.norm1.norm"),
    ("b1.act", "backbone.norm1.act"),
    *_esp("level2_0", "backbone.down2", norm="bn", act="act"),
    *_esp("level2.{i}", "backbone.level2.{i}", norm="bn.bn", act="bn.act"),
    ("b2.bn", "backbone.norm2.norm"),
    ("b2.act", "backbone.norm2.act"),
    *_esp("level3_0", "backbone.down3", norm="bn", act="act"),
    *_esp("level3.{i}", "backbone.level3.{i}", norm="bn.bn", act="bn.act"),
    ("b3.bn", "backbone.norm3.norm"),
    ("b3.act", "backbone.norm3.act"),
    ("classifier.conv", "classify"),
)
"""ESPNet-C (files in the official folder `encoder`)."""

DECODER_PATTERNS: tuple[tuple[str, str], ...] = (
    *((f"encoder.{official}", f"encoder.{ours}") for official, ours in ENCODER_PATTERNS),
    ("br", "norm3"),
    ("up_l3.0", "double3"),
    ("level3_C.conv", "project2"),
    ("combine_l2_l3.0.bn", "norm2.norm"),
    ("combine_l2_l3.0.act", "norm2.act"),
    *_esp("combine_l2_l3.1", "merge2", norm="bn.bn", act="bn.act"),
    ("up_l2.0", "double2"),
    ("up_l2.1.bn", "norm1.norm"),
    ("up_l2.1.act", "norm1.act"),
    ("conv.conv", "merge1.conv"),
    ("conv.bn", "merge1.norm"),
    ("conv.act", "merge1.act"),
    ("classifier", "double1"),
)
"""ESPNet (files in the official folder `decoder`)."""

PATTERNS: tuple[tuple[str, str], ...] = ENCODER_PATTERNS + DECODER_PATTERNS
"""Both; no name means different things in the two."""
