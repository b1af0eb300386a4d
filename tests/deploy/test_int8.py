"""int8 rounds what layers read, and nothing between them: sums of rounded sums lose points."""

import pytest
import torch

from espnetv2.deploy.quiet import quiet
from espnetv2.deploy.subject import Pictures, Settings
from espnetv2.deploy.targets import TARGETS
from espnetv2.deploy.verify import drawn_pictures
from espnetv2.weights.load import load_network

SIZE = (64, 96)


@pytest.fixture(scope="module")
def settings():
    return Settings(precision="int8", size=SIZE, calibration=drawn_pictures(3, SIZE))


def job_of(target, settings):
    loaded = load_network("espnetv2_seg_s0_5.camvid")
    return Pictures(loaded, settings, TARGETS[target]).job()


@pytest.mark.slow
def test_openvino_rounds_for_layers_alone(settings, tmp_path):
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    pytest.importorskip("nncf", reason="the extra `openvino` is not installed")
    from espnetv2.deploy import to_openvino

    to_openvino.convert(job_of("openvino", settings), tmp_path)
    reads: dict[bool, set[str]] = {True: set(), False: set()}
    for operation in openvino.Core().read_model(tmp_path / "model.xml").get_ops():
        kind = operation.get_type_name()
        if kind in ("Convert", "Reshape", "Transpose"):  # of a weight, or on the way to a layer
            continue
        for given in operation.input_values():
            if given.get_node().get_type_name() == "FakeQuantize":
                reads[kind in to_openvino._KINDS].add(operation.get_friendly_name())
    assert len(reads[True]) > 60
    assert not reads[False]


@pytest.mark.slow
def test_executorch_rounds_for_layers_alone(settings):
    pytest.importorskip("executorch", reason="the extra `executorch` is not installed")
    from espnetv2.deploy import to_executorch

    def is_layer(node):
        if node.target == torch.ops.aten.relu.default:  # keeps to the steps of what it is given
            node = node.args[0].args[0].args[0]
        return node.target in to_executorch._KINDS

    with quiet("torch.utils._pytree", "root", "torchao", native=True):
        program = to_executorch.prepare(job_of("executorch", settings))
    read, between = set(), set()
    for node in program.graph.nodes:
        if "dequantize_per_tensor" in str(node.target):
            given = node.args[0].args[0]
            for user in node.users:
                if user.target in to_executorch._KINDS:
                    read.add(user.name)
                elif not is_layer(given):  # what a layer gives is rounded for all
                    between.add(user.name)
    assert len(read) > 60
    assert not between
