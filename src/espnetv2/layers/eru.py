"""The efficient recurrent unit: an LSTM cell whose input passes through 1-D EESP units."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from espnetv2.errors import UserError
from espnetv2.layers.recurrence import recur, scan_steps
from espnetv2.layers.traced import known

TAPS = 3
"""Kernel size of the depth-wise convolutions, as in the 2-D unit."""

GATES = 4
"""Input, forget and output gate, and the candidate."""


class ERUState(NamedTuple):
    """What one ERU layer remembers between segments.

    Attributes:
        hidden: (B, width), the last output.
        cell: (B, width), the LSTM's memory.
        context: (past words, B, channels), reduced words that the dilated convolutions still
            see; no words unless the unit works over time.
    """

    hidden: Tensor
    cell: Tensor
    context: Tensor


class ERU(nn.Module):
    """LSTM cell whose linear transforms of the input vector are EESP units.

    The input does not depend on the recurrence, so all words of a segment pass through the EESP
    units at once; only the hidden-to-hidden map is inside the loop over time. That loop is an
    LSTM's: on a GPU it is one call of cuDNN, for grouped maps too.

        i, f, o, g = split(EESP(x) + W h + b)
        c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c')

    Paper: espnetv2 (arXiv v1) sec. 4.3 and footnote 2; all that it leaves open is in docs/eru.md
        (D21). The grouped hidden-to-hidden map is that of pru sec. 3.
    Shape: (T, B, in_features), state -> (T, B, width), state

    Args:
        transforms: 4, one EESP unit for each gate; or 1, whose output is split into the gates.
        branches: Parallel depth-wise convolutions, K in the paper.
        groups: Of both point-wise maps of the EESP units, g in the paper.
        hidden_groups: Of the hidden-to-hidden map; 1 is a plain LSTM's.
        over_time: Whether the EESP's 1-D signal is the sequence of words; else it is one word.

    Raises:
        UserError: The features do not split into the branches and groups.

    >>> cell = ERU(32, 16)
    >>> output, state = cell(torch.zeros(5, 2, 32), cell.initial_state(2))
    >>> output.shape, state.hidden.shape, state.context.shape
    (torch.Size([5, 2, 16]), torch.Size([2, 16]), torch.Size([0, 2, 16]))
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        transforms: int = 4,
        branches: int = 4,
        groups: int = 4,
        hidden_groups: int = 1,
        over_time: bool = False,
    ) -> None:
        super().__init__()
        if transforms not in (1, GATES):
            raise UserError(f"an ERU has 1 transform or 4 (one per gate), not {transforms=}")
        self.width = width
        self.transform = EESP1d(
            in_features,
            GATES * width // transforms,
            copies=transforms,
            branches=branches,
            groups=groups,
            over_time=over_time,
        )
        self.recurrence = GroupedLinear(width, width, groups=hidden_groups, copies=GATES)
        self.bias = nn.Parameter(torch.zeros(GATES * width))

    def forward(self, x: Tensor, state: ERUState) -> tuple[Tensor, ERUState]:
        """See the class."""
        transformed, context = self.transform(x, state.context)
        steps = transformed + self.bias  # (T, B, 4 width)
        hidden, cell = state.hidden, state.cell
        if x.is_cuda or (self.training and self.recurrence.groups == 1):
            states, hidden, cell = recur(steps, self.recurrence.dense(), hidden, cell)
            return states, ERUState(hidden, cell, context)
        if not known(steps.shape[0]):  # in a traced graph for any number of words
            states, hidden, cell = scan_steps(self._step, steps, hidden, cell)
            return states, ERUState(hidden, cell, context)
        outputs = []
        for step in steps.unbind(0):  # (B, 4 width)
            hidden, cell = self._step(step, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs), ERUState(hidden, cell, context)

    def _step(self, step: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        gates = step + self.recurrence(hidden)
        switches, candidate = gates.split([3 * self.width, self.width], dim=1)
        enter, forget, leave = switches.sigmoid().chunk(3, dim=1)
        cell = forget * cell + enter * candidate.tanh()
        return leave * cell.tanh(), cell

    def initial_state(self, batch: int) -> ERUState:
        """Zeros, on the layer's device and in its precision."""
        zeros = self.bias.new_zeros
        return ERUState(
            zeros(batch, self.width),
            zeros(batch, self.width),
            zeros(self.transform.past, batch, self.transform.reduced),
        )


class EESP1d(nn.Module):
    """EESP unit with 1-D convolutions: for one word vector, or for a sequence of them.

    One word: its features are the channels of a signal of length 1. The point-wise convolutions
    are grouped linear maps. A dilated convolution sees padding on both sides, so only its centre
    tap acts and a branch is a scale per channel (D22).

    Over time: the words are the signal. Branch k looks at the words t, t - k and t - 2k, never
    ahead, and the words before the segment come in as `context`.

    Several units that read the same input (one per gate) are computed side by side; `copies=4`
    equals four units, weight by weight.

    Paper: espnetv2 sec. 3.1, Fig. 1c; 1-D in footnote 2.
    Shape: (T, B, in_features), (past, B, reduced) -> (T, B, copies * out_features), (past, B,
        reduced)

    Args:
        out_features: Of each copy.
        copies: Units side by side.

    Raises:
        UserError: The features do not split into the branches and groups.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        copies: int = 1,
        branches: int = 4,
        groups: int = 4,
        over_time: bool = False,
    ) -> None:
        super().__init__()
        share = out_features // branches
        if in_features % groups or out_features % branches or share % groups:
            raise UserError(
                f"{in_features} -> {out_features} features do not split into {branches} branches "
                f"and {groups} groups: use multiples of {groups} -> {branches * groups}"
            )
        self.copies, self.branches, self.share = copies, branches, share
        self.reduced = copies * share
        self.over_time = over_time
        self.past = (TAPS - 1) * branches if over_time else 0
        self.reduce = GroupedLinear(in_features, share, groups=groups, copies=copies)
        self.reduce_act = NormAct1d(self.reduced)
        self.taps = nn.Parameter(torch.empty(copies, branches, share, TAPS))  # D22
        self.fuse = NormAct1d(copies * out_features)
        self.merge = GroupedLinear(
            copies * out_features, copies * out_features, groups=copies * groups
        )
        self.merge_norm = nn.BatchNorm1d(copies * out_features)
        self.residual = in_features == out_features  # D4
        self.act = nn.PReLU(copies * out_features)
        nn.init.normal_(self.taps, std=math.sqrt(2 / TAPS))

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        length, batch, _ = x.shape
        words = x.flatten(0, 1)  # (T B, in)
        reduced = self.reduce_act(self.reduce(words)).view(length, batch, -1)
        if self.over_time:
            reduced = torch.cat([context, reduced])  # (past + T, B, reduced)
            context = reduced[length:]
            maps = self._look_back(reduced, length)
        else:
            maps = reduced.view(length, batch, self.copies, 1, self.share) * self._scales()
        merged = self.merge_norm(self.merge(self.fuse(maps.reshape(length * batch, -1))))
        if self.residual:
            merged = merged + words.repeat(1, self.copies)
        out: Tensor = self.act(merged)  # (T B, copies out)
        return out.view(length, batch, -1), context

    def _scales(self) -> Tensor:
        # the running sum of scaled copies is one copy, scaled by the running sum
        return self.taps[..., TAPS // 2].cumsum(dim=1)  # (copies, K, share)

    def _look_back(self, words: Tensor, length: int) -> Tensor:
        words = words.view(*words.shape[:2], self.copies, self.share)
        total, sums = words.new_zeros(()), []
        for branch in range(self.branches):
            for tap in range(TAPS):
                start = self.past - (TAPS - 1 - tap) * (branch + 1)
                total = total + words[start : start + length] * self.taps[:, branch, :, tap]
            sums.append(total)
        return torch.stack(sums, dim=3)  # (T, B, copies, K, share)


class GroupedLinear(nn.Module):
    """Linear map without bias in which each group of inputs reaches its own outputs only.

    Shape: (N, in_features) -> (N, copies * out_features)

    Args:
        copies: Maps of the same input, side by side; each with its groups in order.

    Raises:
        UserError: The features do not split into the groups.
    """

    def __init__(
        self, in_features: int, out_features: int, *, groups: int = 1, copies: int = 1
    ) -> None:
        super().__init__()
        if in_features % groups or out_features % groups:
            raise UserError(
                f"{in_features} -> {out_features} features do not split into {groups} groups"
            )
        self.groups, self.copies = groups, copies
        blocks = torch.empty(groups, copies, in_features // groups, out_features // groups)
        for block in blocks.flatten(0, 1):
            nn.init.orthogonal_(block)
        self.weight = nn.Parameter(blocks.transpose(1, 2).flatten(2))  # (g, in/g, copies out/g)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.groups == 1:
            return x @ self.weight[0]
        grouped = x.view(x.shape[0], self.groups, -1).transpose(0, 1)  # (g, N, in/g)
        out = torch.bmm(grouped, self.weight).view(self.groups, x.shape[0], self.copies, -1)
        return out.permute(1, 2, 0, 3).flatten(1)  # (N, copies g out/g)

    def dense(self) -> Tensor:
        """The same map as one matrix, with zeros between groups: x @ dense.

        Shape: (in_features, copies * out_features)
        """
        if self.groups == 1:
            return self.weight[0]
        per_group = self.weight.shape[2] // self.copies
        blocks = self.weight.view(
            self.groups, -1, self.copies, 1, per_group
        )  # (g, in/g, copies, 1, out/g)
        own = torch.eye(self.groups, dtype=blocks.dtype, device=blocks.device)
        spread: Tensor = blocks * own.view(self.groups, 1, 1, self.groups, 1)
        return spread.flatten(2).flatten(0, 1)


class NormAct1d(nn.Module):
    """Batch norm and a PReLU per channel, for vectors.

    Shape: (N, channels) -> the same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.act(self.norm(x))
        return out
