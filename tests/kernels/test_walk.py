"""The kernels for warps compute what the reference does; emulated where there is no GPU."""

import copy
import itertools
import threading

import pytest
import torch

from close import assert_close
from espnetv2.deploy.lively import make_lively
from espnetv2.kernels import layout, nvrtc
from espnetv2.kernels.depthwise_pyramid import (
    depthwise_pyramid,
    depthwise_pyramid_moments,
    launch,
    reference,
    walk,
)
from espnetv2.layers.eesp import EESP, use_kernels_
from kernels.emulator import emulate
from kernels.pyramid_cases import RATIOS, case

pytestmark = pytest.mark.usefixtures("poisoned")

BF16, FP16 = torch.bfloat16, torch.float16
CASES = [
    ((3, 32, 9, 28), (1, 2, 3, 4), 1, BF16),
    ((3, 64, 6, 14), (1, 1, 2, 3), 1, FP16),
    ((5, 32, 7, 7), (1, 1, 2, 3), 1, BF16),  # four images a program, the last has one
    ((2, 16, 5, 100), (1, 2, 3, 4), 1, BF16),  # rows in two segments
    ((2, 8, 3, 13), (4, 3, 2, 1), 1, FP16),  # 8 channels; any order
    ((1, 40, 4, 33), (1, 4), 1, BF16),  # two branches, five groups of channels
    ((2, 32, 1, 2), (1, 2, 3, 4), 1, FP16),
    ((1, 16, 35, 9), (1, 1, 1, 2), 1, BF16),  # bands
    ((3, 32, 9, 28), (1, 2, 3, 4), 2, BF16),
    ((2, 24, 14, 55), (1, 1, 2, 3), 2, FP16),
    ((5, 32, 7, 7), (1, 1, 1, 2), 2, BF16),
    ((2, 16, 6, 133), (1, 2, 3, 4), 2, FP16),  # two segments of 67 columns
    ((2, 8, 1, 4), (4, 3), 2, BF16),
    ((3, 24, 5, 7), (1, 3), 2, FP16),  # three groups of channels
    ((1, 16, 75, 12), (1, 4), 2, FP16),  # bands
    ((1, 16, 74, 11), (2, 3), 2, BF16),
]
FORWARD = [case for case in CASES if case[2] == 1]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def warps(monkeypatch, device, compiled):
    """Where the kernels for warps run, on maps of any size: the GPU, or an emulation."""
    monkeypatch.setattr(walk, "FEWEST", 1)
    if device == "cpu":
        emulate(monkeypatch, compiled)
    return device


@pytest.mark.parametrize(("shape", "dilations", "stride", "dtype"), CASES)
def test_output_and_gradients_are_those_of_float64(
    shape, dilations, stride, dtype, warps, monkeypatch
):
    for name in ("grad_x", "grad_weight", *(["forward"] if stride == 1 else [])):
        monkeypatch.setattr(launch, name, None)  # not by Triton
    given = case(shape, dilations, stride, form="channels-last", dtype=dtype, device=warps)
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    y = depthwise_pyramid(x, weight, *given.settings)
    dx, dw = torch.autograd.grad(y, (x, weight), given.grad)
    for name, actual, expected in zip(("y", "dx", "dw"), (y, dx, dw), given.truth(), strict=True):
        assert actual.dtype == dtype
        assert name == "dw" or layout.memory_format(actual) == layout.memory_format(x)
        assert_close(name, actual.double(), expected, RATIOS[dtype])


@pytest.mark.parametrize("shift", [0.0, 8.0])
@pytest.mark.parametrize(("shape", "dilations", "stride", "dtype"), FORWARD)
def test_moments_are_those_of_float64(shape, dilations, stride, dtype, shift, warps):
    given = case(shape, dilations, form="channels-last", dtype=dtype, device=warps, shift=shift)
    y, mean, var = depthwise_pyramid_moments(given.x, given.weight, *given.settings)
    assert torch.equal(y, depthwise_pyramid(given.x, given.weight, *given.settings))
    truth = reference.moments(given.truth()[0])
    assert mean.dtype == var.dtype == torch.float32
    assert_close("mean", mean.double(), truth[0], RATIOS[dtype])
    assert_close("variance", var.double(), truth[1], RATIOS[dtype])


def _halves(shape, dilations, device, dtype=BF16):
    return case(shape, dilations, form="channels-last", dtype=dtype, device=device)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own check
def test_torch_library_finds_nothing_wrong(warps):
    given, ops = _halves((1, 16, 3, 9), (1, 2), warps), torch.ops.espnetv2
    leaves = given.x.clone().requires_grad_(), given.weight.clone().requires_grad_()
    for operator, arguments in (
        (ops.depthwise_pyramid, leaves),
        (ops.depthwise_pyramid_moments, leaves),
        (ops.depthwise_pyramid_backward, (given.grad, given.x, given.weight)),
    ):
        found = torch.library.opcheck(operator.default, (*arguments, *given.settings))
        assert set(found.values()) == {"SUCCESS"}


def test_a_unit_trains_under_autocast(warps):
    """Its maps become short; it is about as far from float32 as plain layers under autocast.

    In float16: Triton's interpreter cuts bfloat16 off instead of rounding.
    """
    plain = make_lively(EESP(32, 32)).to(warps, memory_format=torch.channels_last).train()
    fused = copy.deepcopy(plain)
    assert use_kernels_(fused, "fused", warps).fused
    x = torch.randn(2, 32, 6, 9, device=warps).to(FP16).to(memory_format=torch.channels_last)

    def trained(unit, short):
        with torch.autocast(warps, FP16, enabled=short):
            y = unit(x if short else x.float()).float()
        return y, *torch.autograd.grad(y.square().sum(), list(unit.parameters()))

    truth = trained(plain, False)
    ours, theirs = (
        [(one - true).norm() / true.norm() for one, true in zip(found, truth, strict=True)]
        for found in (trained(fused, True), trained(plain, True))
    )
    for place, (far, plain_far) in enumerate(zip(ours, theirs, strict=True)):
        assert far <= max(1.5 * plain_far, 1e-3), f"value {place}: {far:.1e}, {plain_far:.1e}"


def test_the_same_bits_every_time(warps):
    given = _halves((3, 32, 8, 12), (1, 2), warps)
    runs = [walk.backward(given.grad, given.x, given.weight, *given.settings) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def test_a_thread_of_its_own_may_begin_with_it(warps):
    """It has no context yet, neither for compiled kernels nor for those that are loaded then."""
    given, found = _halves((3, 32, 8, 12), (1, 2), warps), []
    known = walk.backward(given.grad, given.x, given.weight, *given.settings)

    def work():
        found.append(walk.backward(given.grad, given.x, given.weight, *given.settings))
        found.append(walk.forward(given.x[:1], given.weight, (1, 2)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 2
    for first, second in zip(known, found[0], strict=True):
        assert torch.equal(first, second)


def test_what_belongs_to_a_map_is_where_it_is(warps):
    given = _halves((1, 16, 3, 9), (1, 2), warps)
    with pytest.raises(ValueError, match="what belongs to it on meta"):
        walk.forward(given.x, given.weight.to("meta"), given.dilations)
    with pytest.raises(ValueError, match=r"expected \(1, 32, 3, 9\) of torch.bfloat16"):
        torch.ops.espnetv2.depthwise_pyramid_backward(
            given.grad.float(), given.x, given.weight, *given.settings
        )


def test_maps_that_begin_at_any_place_are_copied(warps):
    """Chunks of 16 bytes lie where these divide the address."""
    given = _halves((2, 16, 5, 9), (1, 2), warps)
    moved = []
    for one in (given.grad, given.x):
        room = one.new_empty(one.numel() + 1)[1:]
        moved.append(room.as_strided(one.shape, one.stride()).copy_(one))
    assert moved[1].data_ptr() % 16
    found = walk.backward(*moved, given.weight, *given.settings)
    expected = walk.backward(given.grad, given.x, given.weight, *given.settings)
    for first, second in zip(found, expected, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("shape", "dilations", "stride", "dtype", "form"),
    [
        ((2, 16, 5, 9), (1, 2), 1, torch.float32, "channels-last"),
        ((2, 16, 5, 9), (1, 2), 1, BF16, "nchw"),
        ((2, 12, 5, 9), (1, 2), 1, BF16, "channels-last"),
        ((2, 16, 5, 9), (1, 2, 3), 1, BF16, "channels-last"),
        ((2, 16, 5, 9), (1, 5), 1, BF16, "channels-last"),
        ((0, 16, 5, 9), (1, 2), 1, BF16, "channels-last"),
    ],
)
def test_all_else_is_left_to_triton(shape, dilations, stride, dtype, form, warps):
    assert walk.walks(_halves((2, 16, 5, 9), (1, 2), warps).x, (1, 2), 1)
    given = case(shape, dilations, stride, form=form, dtype=dtype, device=warps)
    assert not walk.walks(given.x, dilations, stride)


@pytest.mark.parametrize("slots", [walk.SLOTS, walk.SLOTS // 2])
def test_every_share_fits(slots, monkeypatch):
    """Into a block's threads and shared memory; its threads bring all that it wants."""
    seen = []
    monkeypatch.setattr(walk, "SLOTS", slots)
    monkeypatch.setattr(walk, "launch", lambda *_, threads, shared, **__: seen.append(shared))
    for channels, batch, width in itertools.product((8, 16, 24, 40, 64), (1, 16), range(1, 140)):
        for stride, dilations in ((1, (1, 2, 3, 4)), (2, (1, 1, 2, 3)), (2, (1, 4))):
            size = -(-width // stride)
            shares = walk.walk((batch, channels, 1, size), max(dilations))
            assert shares.threads <= 2 * slots
            assert shares.beside * shares.columns % 16 == 0
            halo = -(-max(dilations) // stride)
            assert shares.beside * (shares.columns + 2 * halo) * shares.groups <= shares.threads
            assert shares.columns * shares.across >= size
            x, grad = (
                torch.empty(batch, c, 1, w, dtype=BF16).to(memory_format=torch.channels_last)
                for c, w in ((channels, width), (len(dilations) * channels, size))
            )
            walk.backward(grad, x, torch.empty(len(dilations), channels, 3, 3), dilations, stride)
            if stride == 1:
                walk._forward(x, torch.empty(4, channels, 3, 3), dilations, moments=False)
    assert max(seen) <= 99 * 1024


def test_a_processor_has_no_warps():
    assert not nvrtc.ready(torch.device("cpu"))


def test_the_compiler_says_what_is_wrong():
    if torch.version.cuda is None:
        pytest.skip("torch brings no NVRTC")
    with pytest.raises(RuntimeError, match=r"NVRTC: .*error: identifier \"nil\" is undefined"):
        nvrtc.cubin('extern "C" __global__ void kernel(int* x) { *x = nil; }', (9, 0))


LINES = [
    "barrier();  // this row of x is there; the row before is done with",
    "barrier();  // the row before is done with; G of this one is there",
    "arrived<STAGES - 2>();",
    "arrived<STAGES - 2>();  // of row `begin` only x, if any",
    "sum(mine, s, r + 1, next(stage));",
    "if (r - D > s.top) write_row(turn ^ ROW_Y);",
    "clear_stages();",
    "fresh[0] = fresh[1] = 0;",
]


def test_what_was_compiled_is_kept(tmp_path, monkeypatch):
    if torch.version.cuda is None:
        pytest.skip("torch brings no NVRTC")
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path / "cache"))
    compile_anew = nvrtc.cubin.__wrapped__
    text = 'extern "C" __global__ void kernel(int* x) { *x = 3; }'
    made = compile_anew(text, (9, 0))
    (kept,) = (tmp_path / "cache/kernels").iterdir()
    assert kept.read_bytes() == made
    assert set(nvrtc._known()) >= {80, 90}
    monkeypatch.setattr(nvrtc, "_compiled", None)
    assert compile_anew(text, (9, 0)) == made
    (tmp_path / "file").touch()
    monkeypatch.setenv("ESPNETV2_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(nvrtc, "_compiled", lambda text, options: b"anew")
    assert compile_anew(text, (9, 0)) == b"anew"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU does not tell")
@pytest.mark.parametrize("line", LINES)
def test_the_emulator_finds_what_is_left_out(line, warps, monkeypatch):
    """A barrier, a wait, a step: the launch fails, or the numbers are no longer right."""
    whole, left = walk.source, []

    def without(*files, **defined):
        text = whole(*files, **defined)
        left.append(line in text)
        return text.replace(line, ";")

    monkeypatch.setattr(walk, "source", without)
    given = _halves((1, 32, 35, 20), (1, 2), warps)
    x, weight = given.x.requires_grad_(), given.weight.requires_grad_()
    try:
        y = depthwise_pyramid(x, weight, *given.settings)
        found = y, *torch.autograd.grad(y, (x, weight), given.grad)
    except RuntimeError as error:
        assert "cuLaunchKernel failed with 719" in str(error)  # noqa: PT017
    else:
        far = [
            (actual.double() - expected).norm() / expected.norm()
            for actual, expected in zip(found, given.truth(), strict=True)
        ]
        assert not all(one <= RATIOS[BF16] for one in far)
    assert any(left)
