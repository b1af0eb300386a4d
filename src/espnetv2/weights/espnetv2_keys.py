"""Names in the official ESPNetv2 checkpoints (both repositories) and ours, module by module."""

from __future__ import annotations

Patterns = tuple[tuple[str, "str | None"], ...]
"""Pairs (official module, our module); `{i}` stands for an index, None for one without purpose."""


def _eesp(official: str, ours: str, *, activate: bool = True) -> Patterns:
    return (
        (f"{official}.proj_1x1.conv", f"{ours}.reduce.conv"),
        (f"{official}.proj_1x1.bn", f"{ours}.reduce.norm"),
        (f"{official}.proj_1x1.act", f"{ours}.reduce.act"),
        (f"{official}.spp_dw.{{i}}.conv", f"{ours}.branches.{{i}}"),
        (f"{official}.br_after_cat.bn", f"{ours}.fuse.norm"),
        (f"{official}.br_after_cat.act", f"{ours}.fuse.act"),
        (f"{official}.conv_1x1_exp.conv", f"{ours}.merge.conv"),
        (f"{official}.conv_1x1_exp.bn", f"{ours}.merge.norm"),
        (f"{official}.module_act", f"{ours}.act" if activate else None),  # D3
    )


def conv_norm_act(official: str, ours: str) -> Patterns:
    """A convolution with norm and slopes, as EdgeNets' decoders name it."""
    return (
        (f"{official}.cbr.0", f"{ours}.conv"),
        (f"{official}.cbr.1", f"{ours}.norm"),
        (f"{official}.cbr.2", f"{ours}.act"),
    )


def pyramid(official: str, ours: str) -> Patterns:
    """One `PyramidPool`, as EdgeNets names it."""
    return (
        (f"{official}.stages.{{i}}", f"{ours}.branches.{{i}}"),
        *conv_norm_act(f"{official}.projection_layer", f"{ours}.reduce"),
        (f"{official}.merge_layer.0.br.0", f"{ours}.fuse.norm"),
        (f"{official}.merge_layer.0.br.1", f"{ours}.fuse.act"),
        *conv_norm_act(f"{official}.merge_layer.2", f"{ours}.mix"),
        (f"{official}.merge_layer.3", f"{ours}.project"),
        (f"{official}.br.br.0", f"{ours}.out.norm"),
        (f"{official}.br.br.1", f"{ours}.out.act"),
    )


def _shortcut(official: str, ours: str | None) -> Patterns:
    """The image shortcut of one strided unit; None where nothing uses it."""
    parts = (
        ("0.conv", "0.conv"),
        ("0.bn", "0.norm"),
        ("0.act", "0.act"),
        ("1.conv", "1.conv"),
        ("1.bn", "1.norm"),
    )
    return tuple((f"{official}.{a}", None if ours is None else f"{ours}.{b}") for a, b in parts)


def _backbone(prefix: str, *, levels: int, image_at_last: bool = False) -> Patterns:
    """Levels 1 to `levels`; official names start with `prefix`, ours with `backbone.`."""
    rows: list[tuple[str, str | None]] = [
        (f"{prefix}level1.conv", "backbone.stem.conv"),
        (f"{prefix}level1.bn", "backbone.stem.norm"),
        (f"{prefix}level1.act", "backbone.stem.act"),
    ]
    for level in range(2, levels + 1):
        official, ours = f"{prefix}level{level}", f"backbone.stages.{level - 2}"
        used = level < 5 or image_at_last  # D3
        rows += _eesp(f"{official}_0.eesp", f"{ours}.down.unit", activate=False)
        rows += _shortcut(f"{official}_0.inp_reinf", f"{ours}.down.image" if used else None)
        rows += [(f"{official}_0.act", f"{ours}.down.act")]
        rows += _eesp(f"{official}.{{i}}", f"{ours}.units.{{i}}")
    if levels == 5:
        for i in (0, 1):
            official, ours = f"{prefix}level5.{i + 3}", f"backbone.final.{i}"
            rows += [
                (f"{official}.conv", f"{ours}.conv"),
                (f"{official}.bn", f"{ours}.norm"),
                (f"{official}.act", f"{ours}.act"),
            ]
    return tuple(rows)


def _edgenets_decoder() -> Patterns:
    rows: list[tuple[str, str | None]] = []
    for i in range(4):
        rows += pyramid(f"bu_dec_l{i + 1}", f"pyramids.{i}")
    for i in range(3):
        official, ours = f"merge_enc_dec_l{i + 2}", f"skips.{i}"
        rows += [
            (f"{official}.wt_layer.1", f"{ours}.gate"),
            *conv_norm_act(f"{official}.expansion_layer", f"{ours}.body"),
            (f"bu_br_l{i + 2}.0", f"norms.{i}.norm"),
            (f"bu_br_l{i + 2}.1", f"norms.{i}.act"),
        ]
    return tuple(rows)


_ARXIV_DECODER: Patterns = (
    ("proj_L4_C.conv", "project_16.conv"),
    ("proj_L4_C.bn", "project_16.norm"),
    ("proj_L4_C.act", "project_16.act"),
    *_eesp("pspMod.0", "unit"),
    ("pspMod.1.stages.{i}.conv", "pyramid.branches.{i}"),
    ("pspMod.1.project.conv", "pyramid.project.conv"),
    ("pspMod.1.project.bn", "pyramid.project.norm"),
    ("pspMod.1.project.act", "pyramid.project.act"),
    ("project_l3.1.conv", "classify_8.1"),
    ("act_l3.bn", "norm_8.norm"),
    ("act_l3.act", "norm_8.act"),
    ("project_l2.conv", "classify_4.conv"),
    ("project_l2.bn", "classify_4.norm"),
    ("project_l2.act", "classify_4.act"),
    ("project_l1.1.conv", "classify_2.1"),
)

CLASSIFIER: Patterns = (*_backbone("", levels=5), ("classifier", "classifier"))
EDGENETS_SEGMENTER: Patterns = (*_backbone("base_net.", levels=4), *_edgenets_decoder())
ARXIV_SEGMENTER: Patterns = (*_backbone("net.", levels=4), *_ARXIV_DECODER)
DETECTOR_BACKBONE: Patterns = _backbone("base_net.basenet.", levels=5, image_at_last=True)
