"""An opened EESP unit: what is drawn is what the unit computes."""

import base64
import io

import numpy as np
import torch
from PIL import Image

import demo_server
from espnetv2.demo import inside
from espnetv2.demo.look import read_upload
from espnetv2.weights.load import load_network

UNIT = "backbone.stages.1.units.0"
NAME = "espnetv2_seg_s0_5.camvid"


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_limits_are_those_that_the_layout_gives_every_unit():
    network = load_network("espnetv2_s0_5.imagenette").network
    rows = inside.describe(network)
    assert len(rows) == 4 + 3 + 7 + 3
    for row in rows:
        sees = [2 * dilation + 1 for dilation in row["dilations"]]
        assert max(sees) <= row["limit"]
        fitting = [d for d in range(1, 5) if 2 * d + 1 <= row["limit"]]
        assert sorted(set(row["dilations"])) == fitting


def test_maps_are_the_units_own():
    loaded = load_network(NAME)
    upload = read_upload(demo_server.picture(), max_pixels=10**7)
    opened = inside.open_unit(loaded, NAME, UNIT, upload)
    unit = inside.units_of(loaded.network)[UNIT]
    seen = {}
    hook = unit.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    with torch.inference_mode():
        loaded.network(loaded.preprocessing(upload.image)[None])
        hook.remove()
        fused = unit.views(seen["x"])
        alone = unit.branches[3](unit.reduce(seen["x"]))
    height, width = fused[0].shape[-2:]
    assert (opened.tile.height, opened.tile.width) == (height, width)
    for address, maps in ((opened.branches[3].after, fused[3]), (opened.branches[3].before, alone)):
        drawn = pixels(address).reshape(height, opened.channels, width).transpose(1, 0, 2)
        for channel, one in zip(drawn.astype(float), maps[0].numpy(), strict=True):
            strong = np.abs(one) > 0.05 * np.quantile(np.abs(one), 0.99)
            assert np.array_equal(channel[strong] > 127.5, one[strong] > 0)
    assert opened.branches[0].before == opened.branches[0].after  # nothing is added to the first


def test_fusion_closes_holes():
    fields = inside.fields_of(load_network(NAME), UNIT)
    assert [grid.theoretical for grid in fields.before] == [3, 5, 7, 9]
    for dilation, alone, fused in zip(fields.dilations, fields.before, fields.after, strict=True):
        side = 2 * dilation + 1
        assert abs(alone.gridding - (1 - 9 / side**2)) < 1e-3  # nine taps, wherever they lie
        assert fused.gridding < alone.gridding or dilation == 1
    assert fields.fused.theoretical == fields.unfused.theoretical
    assert fields.fused.picture != fields.unfused.picture


def test_server_opens_and_measures(server):
    units = server.get("/inside/units")[1]
    assert UNIT in [unit["name"] for unit in units]
    status, opened = server.post("/inside", demo_server.picture(), unit=UNIT)
    assert (status, len(opened["branches"])) == (200, 4)
    status, fields = server.get(f"/inside/fields?unit={UNIT}")
    assert status == 200
    assert fields["before"][3]["gridding"] > fields["after"][3]["gridding"]


def test_unknown_unit_is_one_line(server):
    status, answer = server.post("/inside", demo_server.picture(), unit="backbone.nothing")
    assert status == 422
    assert "unknown unit" in answer["error"]
