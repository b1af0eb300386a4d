"""Batch norm, residual and PReLU in one operator: what torch's layers do, forward and backward."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from close import assert_close
from espnetv2.kernels import layout
from espnetv2.kernels.depthwise_pyramid import depthwise_pyramid_moments
from espnetv2.kernels.norm_act import launch, norm_act, reference
from kernels.pyramid_cases import FORMATS, RATIOS, case

pytestmark = pytest.mark.usefixtures("poisoned")

EPS = 1e-3
SHAPES = [(2, 5, 13, 17), (3, 3, 7, 7), (1, 33, 7, 6), (1, 70, 1, 2), (5, 1, 1, 1), (2, 2, 1, 9)]


@dataclass
class Given:
    """Inputs by name, None for what is left out, and the gradient that comes from above."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    slope: torch.Tensor | None
    residual: torch.Tensor | None
    grad: torch.Tensor

    @property
    def inputs(self):
        named = {name: getattr(self, name) for name in NAMES}
        return {name: one for name, one in named.items() if one is not None}

    def truth(self):
        """Output and all gradients of torch's functions, in float64."""
        wide = {name: one.detach().cpu().double() for name, one in self.inputs.items()}
        leaves = [one.requires_grad_() for one in wide.values()]
        z = F.batch_norm(wide["x"], None, None, wide["weight"], wide["bias"], True, eps=EPS)
        if "residual" in wide:
            z = z + wide["residual"]
        if "slope" in wide:
            z = F.prelu(z, wide["slope"])
        grads = torch.autograd.grad(z, leaves, self.grad.cpu().double())
        return {"z": z.detach(), **dict(zip(wide, grads, strict=True))}


NAMES = ("x", "weight", "bias", "slope", "residual")


def draw(shape, *, act=True, residual=False, form="nchw", device="cpu", **options):
    """Random numbers; weights and slopes of any sign. `shift` moves the mean of the map."""
    dtype, shift = options.pop("dtype", torch.float32), options.pop("shift", 0.0)
    assert not options

    def of(*size):
        made = torch.randn(size).to(device, dtype)
        return made.contiguous(memory_format=FORMATS[form]) if len(size) == 4 else made

    x, channels = of(*shape) + shift, shape[1]
    beside = of(*shape) if residual else None
    slope = of(channels) if act else None
    return Given(x, of(channels), of(channels), slope, beside, of(*shape))


def both_ways(given, moments=None):
    """Output and all gradients of the operator, by name."""
    inputs = {name: one.requires_grad_() for name, one in given.inputs.items()}
    z, _, _ = norm_act(
        given.x,
        given.weight,
        given.bias,
        given.slope,
        residual=given.residual,
        moments=moments,
        eps=EPS,
    )
    grads = torch.autograd.grad(z, list(inputs.values()), given.grad)
    return {"z": z, **dict(zip(inputs, grads, strict=True))}


def compare(given, ratio=None, moments=None):
    found, truth = both_ways(given, moments), given.truth()
    for name, one in found.items():
        assert one.dtype == given.x.dtype
        assert_close(name, one.double(), truth[name], ratio or RATIOS[one.dtype])
    for name in ("z", "x"):
        assert layout.memory_format(found[name]) == layout.memory_format(given.x)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_float64(shape, form, device):
    compare(draw(shape, residual=True, form=form, device=device))


@pytest.mark.parametrize("dtype", RATIOS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("act", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_every_precision_with_and_without_residual_and_activation(
    residual, act, form, dtype, device
):
    """Sums are of float32, so that halves are rounded once, when they are written."""
    given = draw((2, 4, 9, 6), residual=residual, act=act, form=form, dtype=dtype, device=device)
    compare(given)


@pytest.mark.parametrize("form", FORMATS)
def test_programs_that_take_many_tiles_are_joined(form, device, monkeypatch):
    for name, value in (("VALUES", 16), ("PROGRAMS", 20), ("SUMMING", 15), ("JOINED", 4)):
        monkeypatch.setattr(launch, name, value)
    given = draw((3, 5, 5, 7), residual=True, form=form, device=device, shift=10.0)
    few = launch.cut(given.x, FORMATS[form], launch.SUMMING)
    assert 1 < few.slots < few.tiles
    compare(given)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shift", [0.0, 100.0, 1e4])
def test_a_large_mean_costs_no_digits(shift, form, device, monkeypatch):
    """Against float64 of the same numbers; means of programs are kept in float32."""
    monkeypatch.setattr(launch, "VALUES", 64)
    x = draw((3, 5, 9, 17), form=form, device=device, shift=shift).x
    expected = reference.moments(x.double())
    _, mean, var = norm_act(x, torch.ones(5, device=device), torch.zeros(5, device=device))
    assert_close("mean", mean, expected[0], 1e-6)
    assert_close("variance", var, expected[1], 1e-6 * max(1.0, shift / 100))


def test_a_first_tile_unlike_the_others_costs_few_digits(device, monkeypatch):
    """Distances are from its mean: at worst the tiles of a program times the last digit."""
    monkeypatch.setattr(launch, "VALUES", 16)
    monkeypatch.setattr(launch, "SUMMING", 1)
    x = 0.01 * torch.randn(1, 1, 40, 16, device=device)
    x[:, :, 1:] += 1000.0
    _, _, var = norm_act(x, torch.ones(1, device=device), torch.zeros(1, device=device))
    assert_close("variance", var, reference.moments(x.double())[1], 40 * 1.2e-7)


@pytest.mark.parametrize("stride", [1, 2])
def test_moments_of_the_pyramid_are_taken(stride, device, monkeypatch):
    monkeypatch.setattr(launch, "moments", lambda x: pytest.fail("the map was read again"))
    pyramid = case((2, 3, 7, 6), (1, 2), stride, device=device, shift=20.0)
    y, mean, var = depthwise_pyramid_moments(pyramid.x, pyramid.weight, *pyramid.settings)
    given = draw(y.shape, residual=True, device=device)
    given.x = y
    compare(given, moments=(mean, var), ratio=1e-5)


def test_moments_take_no_gradient(device):
    given = draw((2, 3, 4, 4), device=device)
    _, mean, var = norm_act(given.x.requires_grad_(), given.weight, given.bias)
    assert not mean.requires_grad
    assert not var.requires_grad
    assert mean.data_ptr() != var.data_ptr()


def test_the_same_bits_every_time(device, monkeypatch):
    monkeypatch.setattr(launch, "VALUES", 32)
    given = draw((4, 3, 9, 9), residual=True, device=device)
    first, second = both_ways(given), both_ways(given)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_inputs_and_vectors_are_kept_for_the_backward_pass(device):
    given, kept = draw((2, 3, 8, 8), residual=True, device=device), []
    given.x.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        both_ways(given)
    maps = {one.data_ptr() for one in kept if one.dim() == 4}
    assert maps == {given.x.data_ptr(), given.residual.data_ptr()}
    assert len(kept) == 7


def test_only_what_needs_a_gradient_gets_one(device):
    given = draw((1, 2, 4, 4), residual=True, device=device)
    z, _, _ = norm_act(given.x, given.weight, given.bias, given.slope, residual=given.residual)
    assert not z.requires_grad
    given.slope.requires_grad_()
    z, _, _ = norm_act(given.x, given.weight, given.bias, given.slope, residual=given.residual)
    z.sum().backward()
    assert given.slope.grad is not None
    assert given.x.grad is None
    assert given.residual.grad is None


def test_maps_that_are_not_dense_or_differ_in_format_are_copied(device):
    given = draw((2, 3, 4, 5), residual=True, device=device)
    wide = torch.randn(2, 3, 4, 10, device=device)
    given.x = wide[..., ::2]
    given.residual = given.residual.contiguous(memory_format=torch.channels_last)
    given.grad = given.grad[..., :1].expand(given.x.shape)
    compare(given)


def test_empty_batches_stay_empty(device):
    given = draw((0, 3, 5, 5), residual=True, device=device)
    found = both_ways(given, moments=(torch.zeros(3, device=device), torch.ones(3, device=device)))
    assert found["z"].shape == found["x"].shape == found["residual"].shape == (0, 3, 5, 5)
    assert torch.equal(found["weight"], torch.zeros(3, device=device))


def test_a_single_value_per_channel_is_refused_as_torch_does(device):
    x, vector = torch.randn(1, 3, 1, 1, device=device), torch.ones(3, device=device)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as ours:
        norm_act(x, vector, vector)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as torchs:
        torch.nn.BatchNorm2d(3).to(device)(x)
    assert str(ours.value) == str(torchs.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": torch.randn(3, 4, 4)},
        {"weight": torch.ones(4)},
        {"slope": torch.ones(1)},
        {"residual": torch.randn(2, 3, 4, 5)},
        {"residual": torch.randn(2, 3, 4, 4).double()},
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    given = {"x": torch.randn(2, 3, 4, 4), "weight": torch.ones(3), "bias": torch.ones(3)} | wrong
    with pytest.raises(ValueError, match=r"^(x|residual) \("):
        norm_act(**given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("act", [True, False])
def test_a_cpu_without_interpreter_gives_the_plain_layers_numbers(act, residual, dtype):
    compare(draw((2, 3, 5, 4), act=act, residual=residual, form="channels-last", dtype=dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", FORMATS)
def test_a_map_of_more_than_two_to_the_31_values(form):
    x = torch.zeros(2, 16, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    x = x.contiguous(memory_format=FORMATS[form])
    x[-1, -1, -1, -1] = 1
    z, mean, _ = norm_act(x, torch.ones(16, device="cuda"), torch.zeros(16, device="cuda"))
    assert z[-1, -1, -1, -1].item() > 100
    assert z[-1, -1, :-1].abs().max().item() < 0.1
    assert mean[-1].item() == pytest.approx(2**-27)
