"""The fused 1x1 convolutions compute what the reference does, forward and backward."""

import pytest
import torch

from close import assert_close
from espnetv2.kernels import layout
from espnetv2.kernels.grouped_pointwise import (
    grouped_pointwise,
    grouped_pointwise_act,
    grouped_pointwise_moments,
    launch,
    reference,
)
from kernels.pyramid_cases import FORMATS, RATIOS

pytestmark = pytest.mark.usefixtures("poisoned")

CASES = [  # batch, channels of a group, the result's, groups, size
    (2, 16, 8, 4, (7, 5), "channels-last"),
    (2, 5, 3, 2, (6, 7), "nchw"),
    (1, 3, 20, 1, (9, 9), "channels-last"),
    (3, 16, 16, 4, (1, 1), "channels-last"),
    (2, 140, 4, 2, (3, 5), "channels-last"),
    (1, 4, 140, 2, (5, 3), "nchw"),
]


def drawn(batch, ks, ns, groups, size, form, *, dtype=torch.float32, device="cpu"):
    """Map, weights, and the gradient from above."""
    x = torch.randn(batch, groups * ks, *size).to(device, dtype)
    weight = torch.randn(groups * ns, ks).to(device, dtype)
    grad = torch.randn(batch, groups * ns, *size).to(device, dtype)
    x, grad = (one.contiguous(memory_format=FORMATS[form]) for one in (x, grad))
    return x.requires_grad_(), weight.requires_grad_(), grad


def ways(operator, x, weight, grad, groups):
    """The output and both gradients."""
    y = operator(x, weight, groups)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


def compare(x, weight, grad, groups):
    found = ways(grouped_pointwise, x, weight, grad, groups)
    wide = [one.detach().cpu().double() for one in (x, weight, grad)]
    leaves = [one.requires_grad_() for one in wide[:2]]
    truth = ways(reference.grouped_pointwise, *leaves, wide[2], groups)
    assert layout.memory_format(found[0]) == layout.memory_format(x)
    for name, actual, expected in zip(("y", "dx", "dw"), found, truth, strict=True):
        assert actual.dtype == x.dtype
        assert_close(name, actual.double(), expected, RATIOS[x.dtype])


@pytest.mark.parametrize("programs", [1, 10_000])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_float64(case, programs, device, monkeypatch):
    """Whether a program has many tiles or one."""
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    monkeypatch.setattr(launch, "SUMMING", programs)
    compare(*drawn(*case, device=device), case[3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES[:2])
def test_every_precision_keeps_its_digits(case, dtype, device):
    compare(*drawn(*case, dtype=dtype, device=device), case[3])


@pytest.mark.parametrize("programs", [1, 10_000])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("form", FORMATS)
def test_moments_are_those_of_what_was_written(form, shift, programs, device, monkeypatch):
    """Tiles' and programs' moments are joined without the cancellation of a sum of squares."""
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    x, weight, _ = drawn(3, 6, 5, 2, (9, 17), form, device=device)
    x = (x.detach() + shift).contiguous(memory_format=FORMATS[form])
    y, mean, var = grouped_pointwise_moments(x, weight, 2)
    expected = reference.moments(y.double())
    assert_close("y", y, reference.grouped_pointwise(x.double(), weight.double(), 2))
    assert_close("mean", mean, expected[0])
    assert_close("variance", var, expected[1])


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_norm_residual_and_slopes_come_before_the_write(case, beside, device):
    x, weight, residual = (one.detach() for one in drawn(*case, device=device))
    residual = residual if beside else None
    factors = torch.randn(4, len(weight)).to(device)  # scale, shift, rise, fall of any sign
    found = grouped_pointwise_act(x, weight, factors, residual, case[3])
    wide = [one if one is None else one.cpu().double() for one in (x, weight, factors, residual)]
    assert_close("activated", found, reference.grouped_pointwise_act(*wide, case[3]))
    assert layout.memory_format(found) == layout.memory_format(x)


def test_gradients_are_the_same_bits_every_time(device):
    x, _, grad = drawn(*CASES[0], device=device)
    first, second = (launch.grad_weight(grad, x.detach(), 4) for _ in range(2))
    assert torch.equal(first, second)


def test_empty_batches_stay_empty(device):
    x, weight, grad = drawn(0, *CASES[0][1:], device=device)
    y, dx, dw = ways(grouped_pointwise, x, weight, grad, 4)
    assert (y.shape, dx.shape) == (grad.shape, x.shape)
    assert torch.equal(dw, torch.zeros_like(weight))


@pytest.mark.parametrize("groups", [0, 2, 3])
def test_what_does_not_fit_is_refused(groups):
    with pytest.raises(ValueError, match="groups"):
        grouped_pointwise(torch.randn(1, 4, 2, 2), torch.randn(6, 4), groups)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_map_of_more_than_two_to_the_31_values():
    """In one image, so that no way within it fits into 32 bits."""
    x = torch.zeros(1, 48, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    x[-1, -1, -1, -1] = 1
    y = grouped_pointwise(x, torch.ones(48, 16, device="cuda"), 3)
    assert y[-1, :, -1, -1].sum().item() == 16
    assert y.sum(dtype=torch.float32).item() == 16
