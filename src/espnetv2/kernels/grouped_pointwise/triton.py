"""Grouped 1x1 convolutions in Triton: forward, gradient of the input, gradient of the weights.

A program owns a group, a block of its channels and every so many-th tile of pixels. Channels of a
group are known when a kernel is compiled. Strides are those of one memory format: *_i from image
to image, *_c from channel to channel, *_p from pixel to pixel; with channels last, all images are
one.
"""

import triton
import triton.language as tl

from espnetv2.kernels.dispatch import interpreted

WIDE = tl.constexpr(interpreted())
"""Whether products are of float32 whatever the maps are: the interpreter knows none of bfloat16."""

SIZES = ("pixels", "tiles", "slots")
"""Arguments whose values make no kernel of their own."""


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x_ptr,
    w_ptr,
    factors_ptr,
    r_ptr,
    y_ptr,
    mean_ptr,
    square_ptr,
    count_ptr,
    x_i,
    x_c,
    y_i,
    y_c,
    pixels,
    tiles,
    slots,
    x_p: tl.constexpr,
    y_p: tl.constexpr,
    w_n: tl.constexpr,
    w_k: tl.constexpr,
    GROUPS: tl.constexpr,
    KS: tl.constexpr,
    NS: tl.constexpr,
    ACT: tl.constexpr,
    RESIDUAL: tl.constexpr,
    MOMENTS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """KS channels of each group to NS; with ACT or MOMENTS more in the same pass."""
    n, group, slot = _place(GROUPS, NS, BLOCK_N)
    real = n < NS
    channel = group * NS + n
    far = channel.to(tl.int64)
    first_x = group.to(tl.int64) * KS * x_c
    weights = w_ptr + group * (KS * NS) + n[None, :] * w_n
    within = tl.arange(0, BLOCK_K).to(tl.int64)
    if KS <= BLOCK_K:
        w = tl.load(
            weights + within[:, None] * w_k, mask=(within < KS)[:, None] & real[None, :], other=0.0
        )
    if ACT:
        factors = factors_ptr + channel
        scale = tl.load(factors, mask=real, other=0.0).to(tl.float32)[None, :]
        shift = tl.load(factors + GROUPS * NS, mask=real, other=0.0).to(tl.float32)[None, :]
        rise = tl.load(factors + 2 * GROUPS * NS, mask=real, other=0.0).to(tl.float32)[None, :]
        fall = tl.load(factors + 3 * GROUPS * NS, mask=real, other=0.0).to(tl.float32)[None, :]
    mean = tl.zeros([BLOCK_N], dtype=tl.float32)
    square = tl.zeros([BLOCK_N], dtype=tl.float32)
    count = 0.0
    per_image = tl.cdiv(pixels, BLOCK_P)
    for tile in range(slot, tiles, slots):
        image = (tile // per_image).to(tl.int64)
        p = tile % per_image * BLOCK_P + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None]
        x_tile = x_ptr + image * x_i + p.to(tl.int64)[:, None] * x_p + first_x
        if KS <= BLOCK_K:
            mask = inside & (within < KS)[None, :]
            x = tl.load(x_tile + within[None, :] * x_c, mask=mask, other=0.0)
            y = _product(x, w, None, PRECISION)
        else:
            y = tl.zeros([BLOCK_P, BLOCK_N], dtype=tl.float32)
            for first in range(0, KS, BLOCK_K):
                k = first + within
                mask = inside & (k < KS)[None, :]
                x = tl.load(x_tile + k[None, :] * x_c, mask=mask, other=0.0)
                mask = (k < KS)[:, None] & real[None, :]
                w = tl.load(weights + k[:, None] * w_k, mask=mask, other=0.0)
                y = _product(x, w, y, PRECISION)
        mask = inside & real[None, :]
        at = image * y_i + p.to(tl.int64)[:, None] * y_p + far[None, :] * y_c
        if ACT:
            y = y * scale + shift
            if RESIDUAL:
                y += tl.load(r_ptr + at, mask=mask, other=0.0).to(tl.float32)
            y = y * tl.where(y > 0, rise, fall)
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)
        if MOMENTS:  # before the sums are rounded; tiles are joined by Chan's formula
            now = tl.minimum(pixels - tile % per_image * BLOCK_P, BLOCK_P).to(tl.float32)
            ours = tl.sum(y, axis=0) / now  # zero beside the map
            apart = tl.where(inside, y - ours[None, :], 0.0)
            step = ours - mean
            share = now / (count + now)
            square += tl.sum(apart * apart, axis=0) + step * step * (share * count)
            mean += step * share
            count += now
    if MOMENTS:
        at = slot.to(tl.int64) * (GROUPS * NS) + channel
        tl.store(mean_ptr + at, mean, mask=real)
        tl.store(square_ptr + at, square, mask=real)
        tl.store(count_ptr + slot, count)


@triton.jit(do_not_specialize=SIZES)
def grad_weight_kernel(
    g_ptr,
    x_ptr,
    partial_ptr,
    x_i,
    x_c,
    g_i,
    g_c,
    pixels,
    tiles,
    slots,
    x_p: tl.constexpr,
    g_p: tl.constexpr,
    GROUPS: tl.constexpr,
    KS: tl.constexpr,
    NS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Products of gradient and input over the program's pixels; slots are added up afterwards."""
    blocks: tl.constexpr = (KS + BLOCK_K - 1) // BLOCK_K
    n, group, rest = _place(GROUPS, NS, BLOCK_N)
    k = rest % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    slot = rest // blocks
    per_image = tl.cdiv(pixels, BLOCK_P)
    total = tl.zeros([BLOCK_N, BLOCK_K], dtype=tl.float32)
    for tile in range(slot, tiles, slots):
        image = (tile // per_image).to(tl.int64)
        p = tile % per_image * BLOCK_P + tl.arange(0, BLOCK_P)
        inside = (p < pixels)[:, None]
        far = p.to(tl.int64)[:, None]
        x_at = x_ptr + image * x_i + far * x_p + (group * KS + k).to(tl.int64)[None, :] * x_c
        g_at = g_ptr + image * g_i + far * g_p + (group * NS + n).to(tl.int64)[None, :] * g_c
        x = tl.load(x_at, mask=inside & (k < KS)[None, :], other=0.0)
        g = tl.load(g_at, mask=inside & (n < NS)[None, :], other=0.0)
        total = _product(tl.trans(g), x, total, PRECISION)
    at = (slot.to(tl.int64) * GROUPS + group) * (NS * KS) + n[:, None] * KS + k[None, :]
    tl.store(partial_ptr + at, total, mask=(n < NS)[:, None] & (k < KS)[None, :])


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr):
    """Of two matrices, added to what there is."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _place(GROUPS: tl.constexpr, NS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Of this program: channels of its group [BLOCK_N], the group, and its number within them.

    Programs side by side have the same pixels, so that an image's lines come from the cache.
    """
    blocks: tl.constexpr = (NS + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    n = program % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    return n, program // blocks % GROUPS, program // (blocks * GROUPS)
