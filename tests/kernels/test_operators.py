"""The operators are good citizens: of torch.library, the compiler, autocast, graphs; and lean."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from close import assert_close
from espnetv2.errors import UserError
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_act,
    depthwise_pyramid_moments,
    launch,
    reference,
)
from espnetv2.kernels.dispatch import Selection, choose
from espnetv2.kernels.layout import pack
from espnetv2.kernels.norm_act import launch as norms
from espnetv2.kernels.norm_act import norm_act
from espnetv2.layers.conv import ConvNormAct
from espnetv2.layers.eesp import use_kernels_
from kernels.pyramid_cases import FORMATS, case

OPS = torch.ops.espnetv2


@pytest.mark.parametrize(
    ("form", "fused"), [("channels-last", True), ("nchw", False), ("nchw", True)]
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own check
def test_torch_library_finds_nothing_wrong(form, fused, request):
    """Schema, shapes and strides without data, gradients, tracing with sizes as symbols."""
    device = request.getfixturevalue("device") if fused else "cpu"
    given = case((2, 3, 5, 6), (1, 2), 2, form=form, device=device)
    x, weight, more = given.x.requires_grad_(), given.weight.requires_grad_(), given.settings
    factors = torch.ones(4, 6, device=device)
    plain = given.x.detach(), given.weight.detach()
    for operator, arguments in (
        (OPS.depthwise_pyramid, (x, weight, *more)),
        (OPS.depthwise_pyramid_moments, (x, weight, *more)),
        (OPS.depthwise_pyramid_act, (plain[0], pack(plain[1], 4), factors, *more)),
        (OPS.depthwise_pyramid_grad_x, (given.grad, plain[1], 5, 6, *more)),
        (OPS.depthwise_pyramid_grad_weight, (given.grad, plain[0], *more)),
        (OPS.depthwise_pyramid_backward, (given.grad, *plain, *more)),
    ):
        found = torch.library.opcheck(operator.default, arguments)
        assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("form", "fused"), [("channels-last", True), ("nchw", False), ("nchw", True)]
)
@pytest.mark.parametrize("act", [True, False])
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_torch_library_finds_nothing_wrong_with_norms(act, form, fused, request):
    device = request.getfixturevalue("device") if fused else "cpu"
    x, beside, grad = (
        torch.randn(2, 3, 5, 4).to(device).contiguous(memory_format=FORMATS[form]) for _ in "xrg"
    )
    mean, var, weight, bias, slope = torch.rand(5, 3, device=device)
    slope = slope if act else None
    for residual in (None, beside):
        plain = x, residual, mean, var, weight, bias, slope, 1e-3
        leaves = [one if one is None else one.clone().requires_grad_() for one in plain[:-1]]
        leaves[2:4] = mean, var
        for operator, arguments in (
            (OPS.channel_moments, (x,)),
            (OPS.norm_act, (*leaves, 1e-3)),
            (OPS.norm_act_backward, (grad, *plain)),
        ):
            found = torch.library.opcheck(operator.default, arguments)
            assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("form", "fused"), [("channels-last", True), ("nchw", False), ("nchw", True)]
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_torch_library_finds_nothing_wrong_with_1x1_convolutions(form, fused, request):
    device = request.getfixturevalue("device") if fused else "cpu"
    x, beside = (
        torch.randn(2, one, 5, 4).to(device).contiguous(memory_format=FORMATS[form])
        for one in (4, 6)
    )
    weight, factors = torch.randn(6, 2, device=device), torch.rand(4, 6, device=device)
    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_(), 2
    for operator, arguments in (
        (OPS.grouped_pointwise, leaves),
        (OPS.grouped_pointwise_moments, leaves),
        (OPS.grouped_pointwise_act, (x, weight, factors, beside, 2)),
        (OPS.grouped_pointwise_act, (x, weight, factors, None, 2)),
        (OPS.grouped_pointwise_grad_x, (beside, weight, 2)),
        (OPS.grouped_pointwise_grad_weight, (beside, x, 2)),
    ):
        found = torch.library.opcheck(operator.default, arguments)
        assert set(found.values()) == {"SUCCESS"}


class Around(nn.Module):
    """The operator between others."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 3, 3))

    def forward(self, x):
        return depthwise_pyramid(x.relu(), self.weight, [1, 2], 2).tanh()


def test_the_compiler_takes_it_whole(device):
    module = Around().to(device)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((5, 6), (7, 9)):
        x = torch.randn(2, 3, *size, device=device, requires_grad=True)
        y, expected = compiled(x), module(x)
        assert_close("y", y, expected)
        grads, wanted = (
            torch.autograd.grad(one.sum(), (x, module.weight)) for one in (y, expected)
        )
        for name, grad, want in zip(("dx", "dw"), grads, wanted, strict=True):
            assert_close(name, grad, want)


def test_the_compiler_takes_a_training_norm_whole(device):
    """Running moments move in the compiled step too; sizes are symbols."""
    plain = ConvNormAct(3, 4).to(device).train()
    use_kernels_(plain, "fused", device)
    compiled = copy.deepcopy(plain)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((5, 6), (7, 9)):
        x = torch.randn(2, 3, *size, device=device)
        found = []
        for module, call in ((plain, plain), (compiled, run)):
            y = call(x)
            grads = torch.autograd.grad(y.square().sum(), list(module.parameters()))
            found.append([y, *grads, *module.buffers()])
        for place, (expected, actual) in enumerate(zip(*found, strict=True)):
            assert_close(f"value {place}", actual, expected)


def test_autocast_makes_maps_short_and_leaves_vectors(device):
    x, residual, grad = (torch.randn(2, 3, 5, 4, device=device) for _ in "xrg")
    vectors = [one.requires_grad_() for one in torch.randn(3, 3, device=device)]
    inputs = [x.requires_grad_(), residual.requires_grad_(), *vectors]
    with torch.autocast(device, dtype=torch.bfloat16):
        z, mean, var = norm_act(x, *vectors, residual=residual)
    assert (z.dtype, mean.dtype, var.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    expected, _, _ = norm_act(x, *vectors, residual=residual)
    found, wanted = (
        (one, *torch.autograd.grad(one.float(), inputs, grad)) for one in (z, expected)
    )
    for place, (actual, value) in enumerate(zip(found, wanted, strict=True)):
        assert_close(f"value {place}", actual.float(), value, 1e-2)
        assert place == 0 or actual.dtype == torch.float32


def test_autocast_makes_the_map_short_and_leaves_the_weights(device):
    given = case((2, 3, 7, 7), (1, 2), device=device)
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        y = depthwise_pyramid(x, weight, *given.settings)
        inside = torch.compile(Around().to(device), fullgraph=True, backend="aot_eager")(x)
    assert y.dtype == inside.dtype == torch.bfloat16
    dx, dw = torch.autograd.grad(y.float(), (x, weight), given.grad)
    assert dx.dtype == dw.dtype == torch.float32
    for name, actual, expected in zip(("y", "dx", "dw"), (y, dx, dw), given.truth(), strict=True):
        assert_close(name, actual.float(), expected, 1e-2)


def test_the_kernels_run_where_they_can(device, monkeypatch):
    """What the other tests here compare is the kernels and not the reference."""
    seen = []
    run = launch.forward
    monkeypatch.setattr(launch, "forward", lambda *a, **k: seen.append(1) or run(*a, **k))
    given = case((1, 2, 3, 3), (1,), device=device)
    depthwise_pyramid(given.x, given.weight, *given.settings)
    assert seen == [1]


def test_the_kernels_of_norms_run_where_they_can(device, monkeypatch):
    seen = []
    for name in ("moments", "forward", "backward"):
        run = getattr(norms, name)
        record = lambda *a, name=name, run=run: seen.append(name) or run(*a)  # noqa: E731
        monkeypatch.setattr(norms, name, record)
    x, vector = torch.randn(1, 2, 3, 3, device=device), torch.ones(2, device=device)
    norm_act(x.requires_grad_(), vector, vector)[0].sum().backward()
    assert seen == ["moments", "forward", "backward"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_without_interpreter_gives_the_plain_layers_numbers(dtype):
    given = case((2, 3, 9, 7), (1, 1, 2), 2, dtype=dtype)
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    y = depthwise_pyramid(x, weight, *given.settings)
    expected = reference.depthwise_pyramid(x, weight, *given.settings)
    assert torch.equal(y, expected)
    found, wanted = (torch.autograd.grad(one, (x, weight), given.grad) for one in (y, expected))
    for name, actual, grad in zip(("dx", "dw"), found, wanted, strict=True):
        assert_close(name, actual.float(), grad.float(), 1e-6 if dtype == torch.float32 else 1e-2)


def test_activation_in_the_same_pass_has_no_gradient():
    given = case((1, 2, 3, 3), (1,))
    x = given.x.requires_grad_()
    y = depthwise_pyramid_act(x, pack(given.weight, 2), torch.ones(4, 2), *given.settings)
    with pytest.raises(RuntimeError, match="has no gradient; it is for inference"):
        y.sum().backward()


def test_choices():
    assert choose("reference", "cuda") == Selection(fused=False)
    assert choose("auto", "cpu") == Selection(fused=False)
    assert choose("auto", "mps") == Selection(fused=False)
    asked = choose("fused", "cpu")
    assert not asked.fused
    assert "cpu is no GPU" in asked.notice
    with pytest.raises(UserError, match="'fast' is unknown; choose reference, fused or auto"):
        choose("fast", "cpu")


def test_an_interpreting_cpu_counts_as_a_place_for_kernels(device):
    assert choose("fused", device) == Selection(fused=True)


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


def test_nothing_imports_triton_or_touches_a_gpu_unasked():
    done = run(
        "import sys, torch, espnetv2.kernels.depthwise_pyramid, espnetv2.models.espnetv2\n"
        "from espnetv2.kernels.depthwise_pyramid import depthwise_pyramid\n"
        "depthwise_pyramid(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 3, 3), [1], 1)\n"
        "espnetv2.kernels.norm_act.norm_act(torch.ones(1, 2, 4, 4), *torch.ones(3, 2))\n"
        "print('triton' in sys.modules, torch.cuda.is_initialized())"
    )
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_without_triton_everything_works():
    """The import is blocked, as on a system for which there is none."""
    done = run(
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch\n"
        "from espnetv2.kernels.dispatch import choose, runs_on\n"
        "from espnetv2.kernels.depthwise_pyramid import depthwise_pyramid\n"
        "x, w = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(1, 2, 3, 3)\n"
        "depthwise_pyramid(x, w, [1], 1).sum().backward()\n"
        "print(x.grad.sum().item(), runs_on('cuda'), choose('auto', 'cuda'))\n"
        "print(choose('fused', 'cuda').notice)"
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "200.0 False Selection(fused=False, notice='')"
    assert "Triton cannot be imported" in second


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_replays_it():
    """Forward and backward, with other numbers in the same memory."""
    x = torch.randn(4, 8, 14, 14, device="cuda", requires_grad=True)
    weight = torch.randn(4, 8, 3, 3, device="cuda", requires_grad=True)
    vectors = torch.randn(3, 32, device="cuda")

    def step():
        y, *moments = depthwise_pyramid_moments(x, weight, [1, 2, 3, 4], 1)
        z = norm_act(norm_act(y, *vectors, moments=moments)[0], *vectors, residual=y)[0]
        return z, *torch.autograd.grad(z.square().sum(), (x, weight))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        x.copy_(torch.randn_like(x))
    graph.replay()
    for name, actual, expected in zip(("z", "dx", "dw"), found, step(), strict=True):
        assert_close(name, actual, expected)
