"""The fused pyramid computes what the reference does, forward and backward."""

import pytest
import torch

from close import assert_close
from espnetv2.kernels import layout
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_act,
    depthwise_pyramid_moments,
    launch,
    reference,
)
from espnetv2.layers.eesp import branch_dilations
from kernels.pyramid_cases import FORMATS, RATIOS, case

pytestmark = pytest.mark.usefixtures("poisoned")

CASES = [
    ((2, 5, 13, 17), (1, 2, 3, 4), 1, "channels-last"),
    ((2, 5, 13, 17), (1, 2, 3, 4), 2, "nchw"),
    ((2, 3, 7, 7), (1, 1, 2, 3), 1, "nchw"),
    ((1, 33, 7, 6), (1, 1, 2, 3), 2, "channels-last"),
    ((3, 4, 5, 3), (1, 1, 1, 2), 1, "channels-last"),
    ((1, 2, 1, 1), (1, 2, 3, 4), 1, "nchw"),
    ((1, 2, 1, 9), (1, 1, 1, 2), 2, "channels-last"),
    ((1, 1, 6, 70), (5, 1), 1, "nchw"),
    ((2, 2, 4, 4), (2,), 2, "nchw"),
]


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize(("shape", "dilations", "stride", "form"), CASES)
def test_output_and_gradients_are_those_of_float64(
    shape, dilations, stride, form, busy, device, monkeypatch
):
    """Where the device is busy anyway, strips are wide and programs walk down whole images."""
    if busy:
        _fill_the_device(monkeypatch)
    given = case(shape, dilations, stride, form=form, device=device)
    _compare(given, torch.float32)


def _fill_the_device(monkeypatch):
    for name in ("ENOUGH", "PROGRAMS", "SUMMING"):
        monkeypatch.setattr(launch, name, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("form", "stride"), [("nchw", 2), ("channels-last", 1)])
def test_every_precision_keeps_its_digits(dtype, form, stride, device):
    """Sums are of float32, so that halves are rounded once, when they are written."""
    given = case((2, 4, 9, 6), (1, 1, 2, 3), stride, form=form, dtype=dtype, device=device)
    _compare(given, dtype)


def _compare(given, dtype):
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    y = depthwise_pyramid(x, weight, *given.settings)
    found = y, *torch.autograd.grad(y, (x, weight), given.grad)
    form = layout.memory_format(given.x)
    assert layout.memory_format(y) == form
    for name, actual, expected in zip(("y", "dx", "dw"), found, given.truth(), strict=True):
        assert actual.dtype == dtype
        assert_close(name, actual.double(), expected, RATIOS[dtype])


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize(("stride", "form"), [(1, "nchw"), (2, "channels-last")])
def test_moments_are_those_of_what_was_written(stride, form, shift, busy, device, monkeypatch):
    """Strips' and programs' moments are joined without the cancellation of a sum of squares."""
    if busy:
        _fill_the_device(monkeypatch)
    given = case((3, 5, 9, 70), (1, 1, 2), stride, form=form, device=device, shift=shift)
    y, mean, var = depthwise_pyramid_moments(given.x, given.weight, *given.settings)
    expected = reference.moments(y.double())
    assert_close("y", y, given.truth()[0])
    assert_close("mean", mean, expected[0])
    assert_close("variance", var, expected[1])


@pytest.mark.parametrize(("channels", "width", "strip"), [(32, 56, 8), (64, 28, 7), (256, 7, 7)])
def test_strips_divide_the_maps_of_the_networks(channels, width, strip):
    size = channels, width, width
    for batch, wanted in ((256, strip), (1, 2)):
        found = launch.strip_of((batch, *size), torch.channels_last, (1, 2, 3, 4))
        assert found == wanted


@pytest.mark.parametrize("form", FORMATS)
def test_norm_and_slopes_come_before_the_write(form, device):
    given = case((2, 5, 7, 9), (1, 1, 2, 3), form=form, device=device)
    factors = torch.randn(4, 20).to(device)  # scale, shift, rise, fall of any sign
    for block in (2, 4, 32):
        packed = layout.pack(given.weight, block)
        found = depthwise_pyramid_act(given.x, packed, factors, *given.settings)
        expected = reference.scale_shift_act(given.truth()[0], factors.double().cpu())
        assert_close("activated", found, expected)
    assert layout.memory_format(found) == FORMATS[form]


def test_a_prelu_is_the_case_of_a_rise_of_one():
    y, slope = torch.randn(2, 3, 4, 4), torch.randn(3)
    one, nil = torch.ones(3), torch.zeros(3)
    expected = torch.nn.functional.prelu(y, slope)
    assert torch.equal(expected, reference.scale_shift_act(y, torch.stack([one, nil, one, slope])))


def test_packing_keeps_every_weight():
    weight = torch.randn(3, 5, 3, 3)
    assert layout.pack(weight, 4).shape == (2, 3, 9, 4)
    assert torch.equal(layout.unpack(layout.pack(weight, 4), 5), weight)


@pytest.mark.parametrize("limit", [5, 7, 9])
def test_dilations_of_the_paper(limit, device):
    _compare(case((1, 2, 9, 8), branch_dilations(4, limit), device=device), torch.float32)


def test_a_dilation_beyond_the_registers_is_left_to_the_reference(device):
    given = case((1, 2, 40, 5), (1, 17), device=device)
    _compare(given, torch.float32)


def test_gradients_are_the_same_bits_every_time(device):
    given = case((4, 3, 9, 9), (1, 2), device=device)
    first, second = (launch.grad_weight(given.grad, given.x, *given.settings) for _ in range(2))
    assert torch.equal(first, second)


def test_maps_that_are_not_dense_are_copied(device):
    """Every second column of a wider map; the result is as of its copy."""
    wide = torch.randn(2, 3, 6, 14, device=device)
    weight = torch.randn(2, 3, 3, 3, device=device)
    x = wide[..., ::2].requires_grad_()
    y = depthwise_pyramid(x, weight, [1, 2], 1)
    expected = depthwise_pyramid(x.contiguous(), weight, [1, 2], 1)
    assert torch.equal(y, expected)
    grad = y.new_ones(()).expand(y.shape)  # of a sum: no stride at all
    (actual,) = torch.autograd.grad(y, x, grad)
    assert_close("dx", actual, torch.autograd.grad(expected, x, grad.contiguous())[0])


def test_empty_batches_stay_empty(device):
    given = case((0, 3, 5, 5), (1, 2), 2, device=device)
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    y = depthwise_pyramid(x, weight, *given.settings)
    assert y.shape == (0, 6, 3, 3)
    dx, dw = torch.autograd.grad(y, (x, weight), y)
    assert dx.shape == x.shape
    assert torch.equal(dw, torch.zeros_like(weight))


def test_only_what_needs_a_gradient_gets_one(device):
    given = case((1, 2, 4, 4), (1, 2), device=device)
    y = depthwise_pyramid(given.x, given.weight.requires_grad_(), *given.settings)
    y.sum().backward()
    assert given.x.grad is None
    assert given.weight.grad is not None


def test_moments_take_no_gradient_and_the_map_its_own(device):
    given = case((2, 2, 5, 5), (1, 2), device=device)
    x = given.x.requires_grad_()
    y, mean, var = depthwise_pyramid_moments(x, given.weight, *given.settings)
    assert not mean.requires_grad
    assert not var.requires_grad
    (dx,) = torch.autograd.grad(y, x, given.grad)
    assert_close("dx", dx, given.truth()[1])


@pytest.mark.parametrize(
    ("shape", "dilations", "stride"),
    [((1, 3, 3, 3), [1, 2], 1), ((2, 2, 3, 3), [1, 0], 1), ((2, 2, 3, 3), [1, 2], 3)],
)
def test_what_does_not_fit_is_refused(shape, dilations, stride):
    with pytest.raises(ValueError, match="dilations"):
        depthwise_pyramid(torch.randn(1, 2, 4, 4), torch.randn(shape), dilations, stride)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_map_of_more_than_two_to_the_31_values():
    """In one image, so that no way within it fits into 32 bits."""
    x = torch.zeros(1, 48, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    x[-1, -1, -1, -1] = 1
    weight = torch.ones(1, 48, 3, 3, device="cuda")
    y = depthwise_pyramid(x, weight, [1], 1)
    assert y[-1, -1, -2:, -2:].sum().item() == 4
    assert y.sum(dtype=torch.float32).item() == 4
