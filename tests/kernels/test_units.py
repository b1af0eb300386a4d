"""EESP units on the fused operators: the same numbers, the same weights, the same training."""

import copy

import pytest
import torch
from torch import nn

from close import assert_close
from espnetv2.deploy.engine_torch import TorchEngine, use_kernels_of
from espnetv2.deploy.fold import fold
from espnetv2.deploy.lively import make_lively
from espnetv2.layers.conv import ConvNormAct, NormAct, init_he
from espnetv2.layers.eesp import EESP, StridedEESP, use_kernels_
from espnetv2.models.catalog import entry


def pair(unit, device, **options):
    """A unit as plain layers and on the kernels."""
    plain = make_lively(unit).to(device)
    fused = copy.deepcopy(plain)
    assert use_kernels_(fused, "fused", device, **options).fused
    return plain, fused


TRAINED = ["moments", "norm", "forward_moments", "norm", "moments", "norm"]
"""A unit: norm and PReLU of its reduction, of its branches, of its end."""


def trained(unit, device):
    """The same in training."""
    return [one.train() for one in pair(unit, device)]


def used(monkeypatch):
    """What reaches the kernels, by operator."""
    from espnetv2.kernels.depthwise_pyramid import launch
    from espnetv2.kernels.grouped_pointwise import launch as pointwise
    from espnetv2.kernels.norm_act import launch as norms

    seen = []

    def watch(module, name, told):
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a: seen.append(told) or run(*a))

    for name in ("forward", "forward_moments", "forward_act"):
        watch(launch, name, name)
    watch(pointwise, "forward_moments", "pointwise_moments")
    watch(pointwise, "forward_act", "pointwise_act")
    watch(norms, "moments", "moments")
    watch(norms, "forward", "norm")
    return seen


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_training_step_is_the_same(stride, form, device, monkeypatch):
    plain, fused = pair(EESP(16, 16, stride=stride), device)
    seen = used(monkeypatch)
    x = torch.randn(2, 16, 7, 5, device=device).contiguous(memory_format=form)
    found = []
    for unit in (plain, fused):
        given = x.clone().requires_grad_()
        y = unit.train()(given)
        y.square().sum().backward()
        found.append([y, given.grad, *(one.grad for one in unit.parameters()), *unit.buffers()])
    assert seen == TRAINED
    for place, (expected, actual) in enumerate(zip(*found, strict=True)):
        assert_close(f"value {place}", actual, expected, 1e-4)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("form", ["train", "deploy"])
def test_inference_is_one_pass_and_the_same(form, frozen, device, monkeypatch):
    plain, fused = pair(EESP(16, 32, max_receptive_field=9).eval(), device)
    if form == "deploy":
        fused = fold(fused)
    use_kernels_(fused, "fused", device, frozen=frozen)
    seen = used(monkeypatch)
    x = torch.randn(2, 16, 7, 5, device=device)
    with torch.inference_mode():
        assert_close("y", fused.eval()(x), plain.eval()(x))
    assert seen == ["pointwise_act", "forward_act", "pointwise_act"]


@pytest.mark.parametrize("autocast", [False, True])
def test_short_types_train_on_the_operators_of_1x1(autocast, device, monkeypatch):
    """Their pass gives the norm's moments. As far from float64 as plain layers are, or nearly."""
    plain, fused = trained(EESP(16, 16), device)
    seen = used(monkeypatch)
    kind = torch.float32 if autocast else torch.bfloat16
    x = torch.randn(4, 16, 7, 5, device=device).contiguous(memory_format=torch.channels_last)
    found = []
    for unit, dtype in ((plain, torch.float64), (plain, kind), (fused, kind)):
        one = copy.deepcopy(unit).to(dtype)
        given = x.to(dtype, copy=True).requires_grad_()
        with torch.autocast(device, torch.bfloat16, enabled=autocast and dtype == kind):
            y = one(given)
        weights = torch.linspace(-1, 1, y.numel(), device=device, dtype=torch.float64)
        (y.double().flatten() * weights).sum().backward()
        grads = torch.cat([each.grad.double().flatten() for each in one.parameters()])
        found.append([y.detach().double(), given.grad.double(), grads])
    pair_of_1x1 = ["pointwise_moments", "norm"]
    assert seen == [*pair_of_1x1, "forward_moments", "norm", *pair_of_1x1]
    for name, truth, expected, actual in zip(("y", "dx", "grads"), *found, strict=True):
        far = (expected - truth).norm() / truth.norm()
        assert_close(name, actual, truth, 3 * float(far))


def test_a_norm_that_stays_in_the_deploy_form_is_one_pass(device, monkeypatch):
    """Where a channel hardly listens to its input, a factor and a summand stay of the norm."""
    unit = make_lively(EESP(16, 16).eval())
    unit.fuse.norm.weight.data[3] = 0
    folded = fold(unit.to(device))
    assert not isinstance(folded.fuse.norm, nn.Identity)
    x = torch.randn(1, 16, 4, 4, device=device)
    expected = folded(x)
    use_kernels_(folded, "fused", device, frozen=True)
    seen = used(monkeypatch)
    with torch.inference_mode():
        assert_close("y", folded(x), expected)
    assert seen == ["pointwise_act", "forward_act", "pointwise_act"]


@pytest.mark.parametrize("watched", ["merge", "merge.conv", "act", "reduce", "branches.0", "fuse"])
def test_a_frozen_unit_that_is_watched_is_the_same(watched, device):
    """What was laid out for the whole is not taken for its parts."""
    plain, fused = pair(EESP(16, 16).eval(), device, frozen=True)
    seen = []
    fused.get_submodule(watched).register_forward_hook(lambda *_: seen.append(watched))
    x = torch.randn(1, 16, 4, 4, device=device)
    with torch.inference_mode():
        assert_close("y", fused(x), plain(x))
        assert_close("merge", fused.merge(x), plain.merge(x))
    assert seen


def test_what_was_laid_out_is_not_folded(device):
    """The deploy form of a network that ran on the kernels has weights of its own."""
    plain, fused = pair(EESP(16, 16).eval(), device, frozen=True)
    x = torch.randn(1, 16, 4, 4, device=device)
    assert_close("y", fold(fused)(x), plain(x))


def test_the_state_dict_is_the_same(device):
    plain, fused = pair(EESP(16, 16).eval(), device, frozen=True)
    assert list(plain.state_dict()) == list(fused.state_dict())
    plain.load_state_dict(fused.state_dict())


def test_a_frozen_unit_trains_as_any_other(device, monkeypatch):
    """What was laid out for inference is not looked at."""
    _, fused = pair(EESP(16, 16).eval(), device, frozen=True)
    seen = used(monkeypatch)
    fused.train()(torch.randn(2, 16, 3, 3, device=device)).sum().backward()
    assert seen == TRAINED
    assert all(one.grad is not None for one in fused.branches.parameters())


def test_a_look_at_the_image_ends_in_the_same_pass(device, monkeypatch):
    """Its norm, the addition and the strided unit's PReLU."""
    down = StridedEESP(EESP(16, 16, branches=2, stride=2, activate=False))
    plain, fused = trained(down, device)
    seen = used(monkeypatch)
    x, image = torch.randn(2, 16, 6, 5, device=device), torch.randn(2, 3, 3, 3, device=device)
    found = []
    for unit in (plain, fused):
        y = unit(x, image)
        y.square().sum().backward()
        found.append([y, *(one.grad for one in unit.parameters()), *unit.buffers()])
    assert seen == [*TRAINED, *("moments", "norm") * 2]
    for place, (expected, actual) in enumerate(zip(*found, strict=True)):
        assert_close(f"value {place}", actual, expected, 1e-4)


def norm_of(kind):
    """A norm that the operator does not compute, or does ("trains")."""
    made = {
        "affine": nn.BatchNorm2d(8, affine=False),
        "statistics": nn.BatchNorm2d(8, track_running_stats=False),
        "momentum": nn.BatchNorm2d(8, momentum=None),
        "frozen": nn.BatchNorm2d(8).eval(),
        "hooked": nn.BatchNorm2d(8),
        "other": type("Other", (nn.BatchNorm2d,), {})(8),
    }.get(kind, nn.BatchNorm2d(8, momentum=0.3))
    if kind == "hooked":
        made.register_forward_hook(lambda *_: None)
    return made


KINDS = ["affine", "statistics", "momentum", "frozen", "hooked", "other", "act"]


@pytest.mark.parametrize("kind", [*KINDS, "trains"])
def test_norms_of_other_kinds_stay_plain_layers(kind, device, monkeypatch):
    plain = ConvNormAct(4, 8)
    plain.norm = norm_of(kind)
    plain.act = nn.PReLU(1 if kind == "act" else 8)
    fused = copy.deepcopy(plain.to(device))
    use_kernels_(fused, "fused", device)
    seen = used(monkeypatch)
    for _ in range(2):
        x = torch.randn(2, 4, 3, 3, device=device)
        assert_close("y", fused(x), plain(x))
    assert seen == (["moments", "norm"] * 2 if kind == "trains" else [])
    for name, one in plain.state_dict().items():
        assert_close(name, fused.state_dict()[name], one, 1e-6)


def test_running_moments_are_those_of_torch_and_empty_batches_leave_them(device):
    plain, fused = trained(NormAct(3), device)
    for batch in (4, 0, 2):
        x = 5 * torch.randn(batch, 3, 3, 2, device=device) + 7
        assert fused(x).shape == plain(x).shape
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert_close(name, getattr(fused.norm, name), getattr(plain.norm, name), 1e-6)
    assert fused.norm.num_batches_tracked == 3


def test_one_value_per_channel_is_refused(device):
    for module in (NormAct(16), EESP(16, 16)):
        _, fused = trained(module, device)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            fused(torch.randn(1, 16, 1, 1, device=device))


@pytest.mark.parametrize("options", [{"fusion": False}, {"convolution": "dilated"}])
def test_ablations_stay_plain_layers(options, device):
    unit = EESP(16, 16, **options)
    use_kernels_(unit, "fused", device)
    assert not unit.fused


def test_a_unit_that_is_watched_runs_layer_by_layer(device, monkeypatch):
    """Rounding for int8, counting of multiply-adds and the demo look inside by hooks."""
    _, fused = pair(EESP(16, 16).eval(), device)
    seen, outputs = used(monkeypatch), []
    hook = fused.branches[1].register_forward_hook(lambda *given: outputs.append(given[2]))
    fused(torch.randn(1, 16, 3, 3, device=device))
    assert (len(outputs), seen) == (1, [])
    hook.remove()
    fused(torch.randn(1, 16, 3, 3, device=device))
    assert seen == ["forward"]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # old, and still in use
def test_exports_trace_the_plain_layers(device):
    _, fused = pair(EESP(16, 16).eval(), device, frozen=True)
    x = torch.randn(1, 16, 8, 8, device=device)
    for unit in (fused, fold(fused)):
        nodes = torch.export.export(unit, (x,), strict=False).graph.nodes
        assert not any("depthwise_pyramid" in str(node.target) for node in nodes)
    assert "depthwise_pyramid" not in str(torch.jit.trace(fused, (x,), check_trace=False).graph)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_compiler_takes_a_unit_whole(autocast, device):
    plain, fused = pair(EESP(16, 16), device)
    x = torch.randn(2, 16, 5, 5, device=device)
    compiled = torch.compile(fused.train(), fullgraph=True, backend="aot_eager")
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        y = compiled(x)
    assert_close("y", y.float(), plain.train()(x), 2e-2 if autocast else 1e-4)


def test_networks_give_the_same_in_every_precision(device):
    """In an engine, as `espnetv2 predict` and `benchmark` open it."""
    network = make_lively(entry("espnetv2_s0_5").build(num_classes=3, in_channels=3)).eval()
    x = torch.randn(1, 3, 32, 32)
    for precision, ratio in (("fp32", 1e-5), ("bf16", 5e-2)):
        expected = TorchEngine(fold(network), precision=precision, device=device)(x)
        engine = TorchEngine(fold(network), precision=precision, device=device)
        use_kernels_of(engine, "fused", device)
        units = [one for one in engine.network.modules() if isinstance(one, EESP)]
        assert units
        assert all(one.fused and one.frozen is not None for one in units)
        assert_close(precision, engine(x), expected, ratio)


class Tiny(nn.Module):
    """A strided unit, and a plain one behind it or not."""

    def __init__(self, *, behind):
        super().__init__()
        self.down = StridedEESP(EESP(8, 8, branches=2, stride=2, activate=False), image_channels=3)
        self.unit = EESP(16, 16, branches=2) if behind else nn.Identity()
        self.last = nn.Linear(16, 3)
        self.apply(init_he)

    def forward(self, x, image):
        return self.last(self.unit(self.down(x, image)).mean(dim=(2, 3)))


def curve(network, steps, device):
    """Losses of a training on the same few random maps."""
    torch.manual_seed(1)
    x, image = torch.randn(3, 8, 5, 4), torch.randn(3, 3, 3, 2)
    labels = torch.tensor([0, 1, 2])
    x, image, labels = x.to(device), image.to(device), labels.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(x, image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


LONG = (pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(1800))
"""On a GPU, and in the slow suite by the interpreter, which takes five minutes."""


@pytest.mark.parametrize(("steps", "behind"), [(20, False), pytest.param(200, True, marks=LONG)])
def test_trainings_follow_the_same_curve(steps, behind, device):
    plain = Tiny(behind=behind).to(device).train()
    fused = copy.deepcopy(plain)
    use_kernels_(fused, "fused", device)
    expected, actual = curve(plain, steps, device), curve(fused, steps, device)
    assert expected[-1] < 0.5 * expected[0]
    assert_close("loss", actual, expected, 1e-3)
