import pytest
import torch

from close import FLOAT32, FLOAT64, assert_close
from espnetv2.layers.eru import ERU
from espnetv2.layers.recurrence import by_torch, recur


def by_the_formula(x, weight, hidden, cell):
    outputs = []
    for step in x:
        enter, forget, leave, candidate = (step + hidden @ weight).chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return torch.stack(outputs), hidden, cell


def draw(length=6, batch=3, width=5):
    shapes = [(length, batch, 4 * width), (width, 4 * width), (batch, width), (batch, width)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("run", [recur, by_torch])
@pytest.mark.parametrize("length", [1, 6])
def test_outputs_and_gradients_are_those_of_the_formula(length, run):
    inputs = draw(length)
    ours, theirs = run(*inputs), by_the_formula(*inputs)
    factors = [torch.randn_like(part) for part in theirs]
    for name, one, other in zip(("outputs", "hidden", "cell"), ours, theirs, strict=True):
        assert_close(name, one, other, FLOAT64)
    gradients = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(parts, factors, strict=True)), inputs)
        for parts in (ours, theirs)
    ]
    for name, one, other in zip(("x", "weight", "hidden", "cell"), *gradients, strict=True):
        assert_close(name, one, other, FLOAT64)


def test_gradients_pass_the_numeric_check():
    assert torch.autograd.gradcheck(recur, draw(3, 2, 2))


def test_without_autograd_the_numbers_are_the_same():
    inputs = draw()
    with torch.no_grad():
        silent = recur(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(silent, recur(*inputs), strict=True))


def test_a_cell_in_training_equals_its_plain_loop():
    cell = ERU(16, 16).double()
    x, state = torch.randn(7, 3, 16, dtype=torch.float64), cell.initial_state(3)
    quick, _ = cell(x, state)
    cell.training = False  # of the cell only: its norms stay in training mode
    plain, _ = cell(x, state)
    assert_close("outputs", quick, plain, FLOAT64)


def test_under_autocast_products_are_short_and_states_are_not():
    inputs = [part.detach().float().requires_grad_() for part in draw(20, 4, 16)]
    exact = recur(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        short = recur(*inputs)
    assert {part.dtype for part in short} == {torch.float32}
    assert_close("outputs", short[0], exact[0], 0.02)
    with pytest.raises(AssertionError):
        assert_close("outputs", short[0], exact[0], FLOAT32)
    one, other = (torch.autograd.grad(parts[0].sum(), inputs) for parts in (short, exact))
    for name, a, b in zip(("x", "weight", "hidden", "cell"), one, other, strict=True):
        assert_close(name, a, b, 0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_outputs_and_gradients_are_those_of_the_formula():
    inputs = [part.detach().float().cuda().requires_grad_() for part in draw(20, 4, 16)]
    ours, theirs = recur(*inputs), by_the_formula(*inputs)
    assert_close("outputs", ours[0], theirs[0], 2e-3)  # TF32
    one, other = (torch.autograd.grad(parts[0].sum(), inputs) for parts in (ours, theirs))
    for name, a, b in zip(("x", "weight", "hidden", "cell"), one, other, strict=True):
        assert_close(name, a, b, 5e-3)
