"""Strips of columns in Triton: where a program's lie, how their values are loaded and added."""

import torch
import triton
import triton.language as tl

from espnetv2.kernels.dispatch import interpreted

PAIRS = tl.constexpr(torch.version.cuda is not None and not interpreted())
"""Whether two bfloat16 of a register are widened by two instructions of PTX; Triton's are three."""


@triton.jit
def channels_of(w_ptr, C, K: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of this program: channels [BLOCK_C], which are real, their weights, tile and band."""
    blocks = tl.cdiv(C, BLOCK_C)
    block = tl.program_id(0) % blocks
    lane = tl.arange(0, BLOCK_C)
    c = block * BLOCK_C + lane
    return c, c < C, w_ptr + block * (K * 9 * BLOCK_C) + lane, tl.program_id(0) // blocks


@triton.jit
def strips_of(tile, strips, W_IN, W_OUT, STRIP: tl.constexpr, BLOCK_S: tl.constexpr):
    """Of a tile's strips: image [BLOCK_S, 1], first column, and how wide the maps are for them.

    For a strip that is none, maps have no columns.
    """
    strip = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    beside = tl.cdiv(W_OUT, STRIP)
    there = strip < strips
    image = (strip // beside).to(tl.int64)[:, None]
    width = tl.where(there, W_IN, 0).to(tl.uint32)
    return image, strip % beside * STRIP, width, tl.where(there, W_OUT, 0)


@triton.jit
def columns_of(
    at,
    w,
    width,
    real,
    STEP: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIDE: tl.constexpr,
    ACC: tl.constexpr,
):
    """Columns of a row that taps of these dilations take, from D before a strip to D behind it."""
    D: tl.constexpr = farthest(DILATIONS)
    xs = ()
    for n in tl.static_range((STRIP - 1) * STRIDE + 2 * D + 1):
        if takes(n - D, DILATIONS, STRIP, STRIDE):
            seen = (w + n - D).to(tl.uint32) < width
            x = tl.load(at + (n - D) * STEP, mask=seen[:, None] & real[None, :], other=0.0)
            xs = xs + (widened(x, ACC),)
        else:
            xs = xs + (0.0,)
    return xs


@triton.jit
def with_products(
    total,
    xs,
    taps,
    k: tl.constexpr,
    level: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIDE: tl.constexpr,
    ACC: tl.constexpr,
):
    """A strip with the three products of one row of a branch's taps added."""
    BLOCK_C: tl.constexpr = taps.shape[0]
    for side in tl.static_range(3):
        weight = tl.load(taps + (k * 9 + level * 3 + side) * BLOCK_C).to(ACC)
        added = ()
        for p in tl.static_range(STRIP):
            x = xs[column(level, side, p, k, DILATIONS, STRIDE)]
            added = added + (total[p] + x * weight[None, :],)
        total = added
    return total


@triton.jit
def with_sums(
    three,
    suffix,
    xs,
    k: tl.constexpr,
    level: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """Sums of three taps with what a strip gives added."""
    out = ()
    for side in tl.static_range(3):
        total = three[side]
        for p in tl.static_range(STRIP):
            total += suffix[p] * xs[column(level, side, p, k, DILATIONS, STRIDE)]
        out = out + (total,)
    return out


@triton.jit
def has_column(w, p: tl.constexpr, fits, WHOLE: tl.constexpr):
    """Whether the strips have a column p; those that are WHOLE have it or do not exist."""
    return w < fits if WHOLE else w + p < fits


@triton.jit
def kept(value, p: tl.constexpr, now, WHOLE: tl.constexpr):
    """Values of column p, zero where a strip has none; those of WHOLE strips are kept."""
    return value if WHOLE else tl.where((p < now)[:, None], value, 0.0)


@triton.jit
def widened(x, ACC: tl.constexpr):
    """A tile in the type of the sums."""
    if PAIRS and x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;",
            "=r,=r,r",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )
    else:
        return x.to(ACC)


@triton.jit
def zeros(count: tl.constexpr, S: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    """So many tiles."""
    out = ()
    for _ in tl.static_range(count):
        out = out + (tl.zeros([S, BLOCK_C], dtype=ACC),)
    return out


@triton.constexpr_function
def farthest(dilations):
    """The largest dilation, D."""
    return max(dilations)


@triton.constexpr_function
def only(k, dilations):
    """The dilation of one branch."""
    return (dilations[k],)


@triton.constexpr_function
def takes(o, dilations, strip, stride):
    """Whether a tap of these dilations, of one of a strip's outputs, is in column `o`."""
    return any(o - p * stride in (-d, 0, d) for p in range(strip) for d in dilations)


@triton.constexpr_function
def column(level, side, p, k, dilations, stride):
    """Where in `columns_of` the tap of output p lies; the middle row has all branches' columns."""
    before = max(dilations) if level == 1 else dilations[k]
    return before + p * stride + (side - 1) * dilations[k]


@triton.constexpr_function
def gives(o, k, dilations, strip, stride):
    """Whether branches up to k take the gradient at column `o` of x to one of a strip's columns."""
    reached = any(o - p in (-d, 0, d) for p in range(strip) for d in dilations[: k + 1])
    return o % stride == 0 and reached


@triton.constexpr_function
def giver(side, p, k, dilations):
    """Where in the suffix sums the gradient lies that a tap gives to column p."""
    return max(dilations) + p - (side - 1) * dilations[k]


@triton.constexpr_function
def row_of(level, k, dilations):
    """Where in the rows from D above to D below a row of taps lies."""
    return max(dilations) + (level - 1) * dilations[k]
