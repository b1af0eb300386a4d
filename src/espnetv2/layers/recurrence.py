"""The recurrent half of an LSTM cell, with its gradient written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def recur(x: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM whose input is already mapped to the gates; differentiable once.

        i, f, o, g = split(x_t + h W)
        c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')

    The same numbers as a loop of plain operations. Its gradient is written out: the weight's is
    one product over all steps instead of one for each, and nothing is allocated in the loop.

    Under autocast the products are of the low precision on a CPU, of cuDNN's own choice on a GPU;
    states and sums stay in float32.

    Shape: (T, B, 4 H), (H, 4 H), (B, H), (B, H) -> outputs (T, B, H), last h, last c (B, H)
    """
    kind = x.device.type
    short = torch.is_autocast_enabled(kind)
    if short:
        x, weight, hidden, cell = x.float(), weight.float(), hidden.float(), cell.float()
    if x.is_cuda:
        with torch.autocast(kind, enabled=False):
            return by_torch(x, weight, hidden, cell)
    if short:
        weight = weight.to(torch.get_autocast_dtype(kind))
    outputs, last = _Recurrence.apply(x, weight, hidden, cell)
    return outputs, outputs[-1], last


def by_torch(
    x: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by torch's LSTM, which on a GPU is one call of cuDNN instead of hundreds.

    That LSTM always maps its input; here the map is an identity, whose products cost a GPU less
    than the launches that they save.

    Shape: as `recur`
    """
    width = len(weight)
    # torch's order is input, forget, candidate, output
    x, weight = (
        torch.cat(
            [gates[..., : 2 * width], gates[..., 3 * width :], gates[..., 2 * width : -width]], -1
        )
        for gates in (x, weight)
    )
    identity = torch.eye(4 * width, dtype=x.dtype, device=x.device)
    # one piece of memory with room for biases, as cuDNN has it; else torch copies, and warns
    packed = torch.cat([identity.flatten(), weight.t().flatten(), x.new_zeros(8 * width)])
    first, second = identity.numel(), identity.numel() + weight.numel()
    weights = [packed[:first].view(-1, 4 * width), packed[first:second].view(-1, width)]
    state = (hidden.unsqueeze(0), cell.unsqueeze(0))
    outputs, hidden, cell = torch.lstm(x, state, weights, False, 1, 0.0, True, False, False)
    return outputs, hidden[0], cell[0]


def scan_steps(
    step: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    hidden: Tensor,
    cell: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a cell over the words as one loop in a traced graph, for any number of them.

    A Python loop is unrolled by the tracer and so fixes the number.

    Shape: (T, B, 4 H), (B, H), (B, H) -> outputs (T, B, H), last h, last c (B, H)

    Args:
        step: (B, 4 H), h, c -> h, c.
    """
    from torch._higher_order_ops import scan  # takes long to import, only tracers need it

    def advance(state: tuple[Tensor, Tensor], word: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        after, memory = step(word, *state)
        return (after, memory), after.clone()  # what is carried must be nobody else's

    (hidden, cell), outputs = scan(advance, (hidden, cell), x)
    return outputs, hidden, cell


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        length, batch, width = len(x), *hidden.shape
        gates = torch.empty_like(x)
        hiddens = torch.cat([hidden.unsqueeze(0), x.new_empty(length, batch, width)])
        cells = torch.cat([cell.unsqueeze(0), x.new_empty(length, batch, width)])
        switches, candidates = gates[..., : 3 * width], gates[..., 3 * width :]
        enter, forget, leave = switches.chunk(3, dim=2)
        for t in range(length):
            _add_product(x[t], hiddens[t], weight, out=gates[t])
            switches[t].sigmoid_()
            candidates[t].tanh_()
            torch.mul(forget[t], cells[t], out=cells[t + 1]).addcmul_(enter[t], candidates[t])
            torch.tanh(cells[t + 1], out=hiddens[t + 1]).mul_(leave[t])
        ctx.save_for_backward(weight, gates, hiddens, cells)
        return hiddens[1:].clone(), cells[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_outputs: Tensor, grad_cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight, gates, hiddens, cells = ctx.saved_tensors
        length, batch, width = grad_outputs.shape
        enter, forget, leave, candidate = gates.chunk(4, dim=2)
        squashed = cells[1:].tanh()
        through = leave * (1 - squashed.square())  # d h' / d c'
        # d / d gate before its own slope's factor from above (h' or c') is known
        grad = torch.empty_like(gates)
        grad_enter, grad_forget, grad_leave, grad_candidate = grad.chunk(4, dim=2)
        torch.mul(enter * (1 - enter), candidate, out=grad_enter)
        torch.mul(forget * (1 - forget), cells[:-1], out=grad_forget)
        torch.mul(leave * (1 - leave), squashed, out=grad_leave)
        torch.mul(1 - candidate.square(), enter, out=grad_candidate)
        pair = grad[..., : 2 * width].view(length, batch, 2, width)
        back = weight.t()
        grad_hidden = grad_outputs[-1]
        for t in range(length - 1, -1, -1):
            grad_cell = torch.addcmul(grad_cell, grad_hidden, through[t])
            pair[t].mul_(grad_cell.unsqueeze(1))
            grad_candidate[t].mul_(grad_cell)
            grad_leave[t].mul_(grad_hidden)
            grad_cell.mul_(forget[t])
            if t:
                grad_hidden = _add_product(grad_outputs[t - 1], grad[t], back)
        before, above = hiddens[:-1].flatten(0, 1), grad.flatten(0, 1)  # (T B, H), (T B, 4 H)
        grad_weight = before.to(weight.dtype).t() @ above.to(weight.dtype)
        first = _add_product(torch.zeros_like(grad_hidden), grad[0], back)
        return grad, grad_weight, first, grad_cell


def _add_product(x: Tensor, left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Tensor:
    if right.dtype == x.dtype:
        return torch.addmm(x, left, right, out=out)
    return torch.add(x, left.to(right.dtype) @ right, out=out)
