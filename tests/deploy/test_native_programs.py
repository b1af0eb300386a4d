"""Programs that no network here makes, but a model file may state."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save

from deploy.isa import run_with

native = pytest.importorskip("espnetv2_native", reason="the native engine is not built")


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def content(steps, arrays):
    """A model file that gives the last step's map."""
    output = {"name": "o", "in": [steps[-1]["out"]], "form": "map"}
    program = json.dumps({"channels": 3, "steps": steps, "outputs": [output]})
    header = {"format": "espnetv2-native/1", "precision": "fp32", "program": program}
    return save(arrays, header)


def close(found, expected):
    return np.abs(found - expected.numpy()).max() <= 1e-5 * expected.abs().max()


def check(steps, arrays, given, expected):
    """One map, for one thread and for three."""
    model = native.Model.of(content(steps, arrays))
    for threads in (1, 3):
        found = model.open(*given.shape[:1], *given.shape[2:], threads).run(given.numpy())[0]
        assert close(found, expected)


def test_a_flat_map_and_a_residual_with_a_border():
    given = drawn(2, 3, 12, 11, seed=0)
    first, left, right = (
        drawn(8, 3, 1, 1, seed=1),
        drawn(8, 8, 1, 1, seed=2),
        drawn(8, 8, 1, 1, seed=3),
    )
    mixed, seen = drawn(8, 8, 1, 1, seed=4), drawn(8, 16, 3, 3, seed=5)
    steps = [
        {"op": "conv", "in": ["image"], "out": "a", "weight": "first"},
        {"op": "conv", "in": ["a"], "out": "b", "weight": "left"},
        {"op": "conv", "in": ["a"], "out": "c", "weight": "right"},
        {"op": "conv", "in": ["b"], "out": "d", "weight": "mixed", "residual": "c"},
        {"op": "concat", "in": ["c", "d"], "out": "e"},
        {"op": "conv", "in": ["e"], "out": "f", "weight": "seen"},
    ]
    a = F.conv2d(given, first)
    c = F.conv2d(a, right)
    d = F.conv2d(F.conv2d(a, left), mixed) + c
    expected = F.conv2d(torch.cat([c, d], 1), seen, padding=1)
    arrays = {"first": first, "left": left, "right": right, "mixed": mixed, "seen": seen}
    check(steps, arrays, given, expected)


def test_a_map_seen_from_beside_it():
    """What a depth-wise convolution makes lies beside what it reads, rows around included."""
    given = drawn(1, 3, 192, 200, seed=0)
    first, near, both = (
        drawn(8, 3, 3, 3, seed=1),
        drawn(8, 1, 3, 3, seed=2),
        drawn(8, 2, 3, 3, seed=3),
    )
    second = drawn(8, 8, 1, 1, seed=4)
    steps = [
        {"op": "conv", "in": ["image"], "out": "a", "weight": "first"},
        {"op": "conv", "in": ["a"], "out": "b", "weight": "second"},
        {"op": "pyramid", "in": ["b"], "out": "c", "branches": [{"weight": "near"}]},
        {"op": "pyramid", "in": ["c", "b"], "out": "d", "branches": [{"weight": "both"}]},
    ]
    b = F.conv2d(F.conv2d(given, first, padding=1), second)
    c = F.conv2d(b, near, padding=1, groups=8)
    pairs = torch.stack([c, b], 2).flatten(1, 2)
    expected = F.conv2d(pairs, both, padding=1, groups=8)
    check(steps, {"first": first, "near": near, "both": both, "second": second}, given, expected)


class Planar:
    """Steps as narrow networks have them, beside what torch makes of them."""

    def __init__(self, given):
        self.maps, self.steps, self.arrays = {"image": given}, [], {}

    def array(self, *shape):
        name = f"array{len(self.arrays)}"
        self.arrays[name] = drawn(*shape, seed=len(self.arrays))
        return name, self.arrays[name]

    def add(self, out, made, slopes=True, **step):
        step["out"] = out
        if slopes:
            (step["rise"], rise), (step["fall"], fall) = (self.array(made.shape[1]) for _ in "rf")
            rise, fall = rise.view(-1, 1, 1), fall.view(-1, 1, 1)
            made = torch.where(made > 0, made * rise, made * fall)
        self.maps[out] = made
        self.steps.append(step)

    def conv(self, out, source, channels, *, side=1, residual=None, **options):
        x = self.maps[source]
        name, weight = self.array(channels, x.shape[1] // options.get("groups", 1), side, side)
        bias_name, bias = self.array(channels)
        made = F.conv2d(x, weight, bias, padding=side // 2, **options)
        if residual:
            made = made + self.maps[residual]
            options["residual"] = residual
        self.add(out, made, op="conv", weight=name, bias=bias_name, **{"in": [source]}, **options)

    def pyramid(self, out, source, dilations, *, stride=1, slopes=True):
        x = self.maps[source]
        branches, made = [], []
        for dilation in dilations:
            name, weight = self.array(x.shape[1], 1, 3, 3)
            branches.append({"weight": name, "dilation": dilation})
            seen = F.conv2d(x, weight, None, stride, dilation, dilation, x.shape[1])
            made.append(seen + made[-1] if made else seen)
        (scale_name, scale), (shift_name, shift) = (
            self.array(x.shape[1] * len(dilations)) for _ in "ss"
        )
        result = torch.cat(made, 1) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        step = {"branches": branches, "running": True, "scale": scale_name, "shift": shift_name}
        self.add(out, result, slopes, op="pyramid", stride=stride, **{"in": [source]}, **step)

    def concat(self, out, *sources):
        made = torch.cat([self.maps[one] for one in sources], 1)
        self.add(out, made, slopes=False, op="concat", **{"in": list(sources)})


@pytest.mark.parametrize("size", [(1, 2), (9, 31), (40, 97), (130, 161), (30, 480)])
@pytest.mark.parametrize("isa", ["avx512", "avx2", "plain"])
def test_narrow_maps_lie_plane_by_plane(size, isa, tmp_path):
    """All ways in and out of such maps: strided, grouped, added to, joined, seen from beside."""
    made = Planar(drawn(2, 3, *size, seed=99))
    made.conv("a", "image", 6, side=3, stride=2)
    made.conv("b", "a", 6, groups=2)
    made.pyramid("c", "b", [1, 2, 3, 4], stride=2)
    made.pyramid("pooled", "a", [1], stride=2, slopes=False)
    made.conv("d", "c", 6, groups=3, residual="pooled")
    made.concat("e", "pooled", "d")
    made.conv("f", "e", 3, groups=3)
    made.pyramid("g", "f", [1, 3])
    made.conv("h", "g", 12, groups=3, residual="e")
    made.conv("i", "h", 5, side=3)
    made.pyramid("j", "i", [1, 1, 2, 3], stride=2)
    file = content(made.steps, made.arrays)
    assert close(run_with(isa, file, made.maps["image"], tmp_path), made.maps["j"])


_IN_GERMAN = """
import locale, sys, espnetv2_native
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
espnetv2_native.Model(sys.argv[1])
"""


def test_a_locale_whose_numbers_have_a_comma(tmp_path):
    """As programs with windows set it, for the whole process."""
    localedef = shutil.which("localedef")
    where = tmp_path / "de_DE.UTF-8"
    command = [localedef, "-i", "de_DE", "-f", "UTF-8", where]
    if not localedef or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no German locale can be made here")
    weight = drawn(4, 3, 1, 1, seed=0)
    step = {"op": "conv", "in": ["image"], "out": "a", "weight": "w"}
    rounded = step | {"weight_scale": "s", "input_scale": 0.125, "input_zero": 7}
    file = tmp_path / "model"
    file.write_bytes(content([rounded], {"w": (weight * 100).round(), "s": torch.ones(4)}))
    subprocess.run(
        [sys.executable, "-c", _IN_GERMAN, file],
        env=os.environ | {"LOCPATH": str(tmp_path)},
        check=True,
    )


def test_training_weights_are_no_model():
    with pytest.raises(ValueError, match=r"not a model file of this engine.*--to native"):
        native.Model.of(save({"a": torch.zeros(3, dtype=torch.int64)}, {"model": "espnetv2_s0_5"}))
