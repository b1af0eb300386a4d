"""Batch norm, residual and PReLU in Triton: moments, forward, sums of the gradients, gradients.

A program owns a block of channels and every so many-th tile of pixels. Tiles are
[BLOCK_P, BLOCK_C]. In channels-last memory the whole batch is one image of B H W pixels. All maps
of a call have the same memory format: *_step is the way from image to image, channel to channel,
pixel to pixel. A tile is found by an offset of 64 bits, what lies in it by offsets of 32.
"""

import triton
import triton.language as tl

COUNTS = ("count", "tiles", "slots")
"""Arguments whose values make no kernel of their own."""


@triton.jit(do_not_specialize=COUNTS)
def moments_kernel(
    x_ptr,
    mean_ptr,
    square_ptr,
    count_ptr,
    C,
    pixels,
    image_step,
    c_step,
    p_step,
    tiles,
    slots,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and sum of squared distances of a program's pixels.

    Distances are from the mean of its first tile. The squared distance of that from the mean of n
    tiles is at most n times the variance, so a large mean costs no digits.
    """
    block, slot, c = _place(C, BLOCK_C)
    real = c < C
    at, near, mask = _tile(slot, block, C, pixels, image_step, c_step, p_step, BLOCK_P, BLOCK_C)
    x = tl.load(x_ptr + at + near, mask=mask, other=0.0).to(ACC)
    start = tl.sum(x, axis=0) / tl.maximum(tl.sum(mask.to(ACC), axis=0), 1.0)
    total = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    square = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    count = tl.full([], 0, dtype=tl.int64)
    for tile in range(slot, tiles, slots):
        at, near, mask = _tile(tile, block, C, pixels, image_step, c_step, p_step, BLOCK_P, BLOCK_C)
        x = tl.load(x_ptr + at + near, mask=mask, other=0.0).to(ACC)
        apart = tl.where(mask, x - start[None, :], 0.0)
        total += apart
        square += apart * apart
        count += tl.minimum(BLOCK_P, pixels - tile % tl.cdiv(pixels, BLOCK_P) * BLOCK_P)
    n = count.to(ACC)
    step = tl.sum(total, axis=0) / n
    spread = tl.maximum(tl.sum(square, axis=0) - step * step * n, 0.0)
    to = slot.to(tl.int64) * C + c
    tl.store(mean_ptr + to, start + step, mask=real)
    tl.store(square_ptr + to, spread, mask=real)
    tl.store(count_ptr + slot, n)


@triton.jit(do_not_specialize=COUNTS)
def join_kernel(
    means_ptr,
    squares_ptr,
    count_ptr,
    mean_ptr,
    var_ptr,
    C,
    slots,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and biased variance (C,) of what the slots have seen, by Chan's formula."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.load(means_ptr + c, mask=c < C, other=0.0)
    apart = tl.zeros_like(first)
    n = tl.sum(apart)
    for start in range(0, slots, BLOCK_S):
        count, means, _ = _parts(means_ptr, squares_ptr, count_ptr, c, C, start, slots, BLOCK_S)
        apart += tl.sum((means - first[None, :]) * count, axis=0)
        n += tl.sum(count)
    mean = first + apart / n
    var = tl.zeros_like(first)
    for start in range(0, slots, BLOCK_S):
        count, means, squares = _parts(
            means_ptr, squares_ptr, count_ptr, c, C, start, slots, BLOCK_S
        )
        step = means - mean[None, :]
        var += tl.sum(squares + step * step * count, axis=0) / n
    tl.store(mean_ptr + c, mean, mask=c < C)
    tl.store(var_ptr + c, var, mask=c < C)


@triton.jit
def _parts(means_ptr, squares_ptr, count_ptr, c, C, start, slots, BLOCK_S: tl.constexpr):
    """Counts [BLOCK_S, 1], means and squares [BLOCK_S, BLOCK_C] of slots; of none, nothing."""
    s = start + tl.arange(0, BLOCK_S)
    mask = (s < slots)[:, None] & (c < C)[None, :]
    near = s[:, None] * C + c[None, :]
    count = tl.load(count_ptr + s, mask=s < slots, other=0.0)[:, None]
    means = tl.load(means_ptr + near, mask=mask, other=0.0)
    return count, means, tl.load(squares_ptr + near, mask=mask, other=0.0)


@triton.jit(do_not_specialize=COUNTS)
def forward_kernel(
    x_ptr,
    r_ptr,
    mean_ptr,
    var_ptr,
    weight_ptr,
    bias_ptr,
    slope_ptr,
    z_ptr,
    C,
    pixels,
    image_step,
    c_step,
    p_step,
    tiles,
    slots,
    EPS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Norm, residual and PReLU: each map is read or written once."""
    block, slot, c = _place(C, BLOCK_C)
    mean, invstd = _norm(mean_ptr, var_ptr, c, C, EPS, ACC)
    weight, bias, slope = _affine(weight_ptr, bias_ptr, slope_ptr, c, C, ACT, ACC)
    for tile in range(slot, tiles, slots):
        at, near, mask = _tile(tile, block, C, pixels, image_step, c_step, p_step, BLOCK_P, BLOCK_C)
        x = tl.load(x_ptr + at + near, mask=mask, other=0.0).to(ACC)
        z = (x - mean) * invstd * weight + bias
        if RESIDUAL:
            z += tl.load(r_ptr + at + near, mask=mask, other=0.0).to(ACC)
        if ACT:
            z = tl.where(z > 0, z, z * slope)
        tl.store(z_ptr + at + near, z.to(z_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=COUNTS)
def sums_kernel(
    g_ptr,
    x_ptr,
    r_ptr,
    mean_ptr,
    var_ptr,
    weight_ptr,
    bias_ptr,
    slope_ptr,
    dr_ptr,
    partial_ptr,
    C,
    pixels,
    image_step,
    c_step,
    p_step,
    tiles,
    slots,
    EPS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Three sums over the program's pixels; with a residual, its gradient in the same pass."""
    block, slot, c = _place(C, BLOCK_C)
    mean, invstd = _norm(mean_ptr, var_ptr, c, C, EPS, ACC)
    weight, bias, slope = _affine(weight_ptr, bias_ptr, slope_ptr, c, C, ACT, ACC)
    even = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    tilt = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    below = tl.zeros([BLOCK_P, BLOCK_C], dtype=ACC)
    for tile in range(slot, tiles, slots):
        at, near, mask = _tile(tile, block, C, pixels, image_step, c_step, p_step, BLOCK_P, BLOCK_C)
        x = tl.load(x_ptr + at + near, mask=mask, other=0.0).to(ACC)
        g = tl.load(g_ptr + at + near, mask=mask, other=0.0).to(ACC)
        normed = (x - mean) * invstd
        if ACT:
            u = normed * weight + bias
            if RESIDUAL:
                u += tl.load(r_ptr + at + near, mask=mask, other=0.0).to(ACC)
            below += tl.where(u > 0, 0.0, g * u)
            g = tl.where(u > 0, g, g * slope)
            if RESIDUAL:
                tl.store(dr_ptr + at + near, g.to(dr_ptr.dtype.element_ty), mask=mask)
        even += g
        tilt += g * normed
    to = partial_ptr + slot.to(tl.int64) * 3 * C + c
    tl.store(to, tl.sum(even, axis=0), mask=c < C)
    tl.store(to + C, tl.sum(tilt, axis=0), mask=c < C)
    tl.store(to + 2 * C, tl.sum(below, axis=0), mask=c < C)


@triton.jit(do_not_specialize=COUNTS)
def grad_kernel(
    g_ptr,
    x_ptr,
    mean_ptr,
    var_ptr,
    weight_ptr,
    bias_ptr,
    slope_ptr,
    sums_ptr,
    dx_ptr,
    count,
    C,
    pixels,
    image_step,
    c_step,
    p_step,
    tiles,
    slots,
    EPS: tl.constexpr,
    ACT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradient of x from that of z, or without ACT from that of u, and the sums (3, C)."""
    block, slot, c = _place(C, BLOCK_C)
    mean, invstd = _norm(mean_ptr, var_ptr, c, C, EPS, ACC)
    weight, bias, slope = _affine(weight_ptr, bias_ptr, slope_ptr, c, C, ACT, ACC)
    n = (count + tl.full([], 0, dtype=tl.int64)).to(ACC)
    even = tl.load(sums_ptr + c, mask=c < C, other=0.0)[None, :] / n
    tilt = tl.load(sums_ptr + C + c, mask=c < C, other=0.0)[None, :] / n
    for tile in range(slot, tiles, slots):
        at, near, mask = _tile(tile, block, C, pixels, image_step, c_step, p_step, BLOCK_P, BLOCK_C)
        x = tl.load(x_ptr + at + near, mask=mask, other=0.0).to(ACC)
        g = tl.load(g_ptr + at + near, mask=mask, other=0.0).to(ACC)
        normed = (x - mean) * invstd
        if ACT:
            g = tl.where(normed * weight + bias > 0, g, g * slope)
        dx = (g - even - normed * tilt) * (invstd * weight)
        tl.store(dx_ptr + at + near, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _place(C, BLOCK_C: tl.constexpr):
    """Of this program: its block of channels, its slot, its channels [BLOCK_C]."""
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    block = program % blocks
    return block, program // blocks, block * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def _tile(
    tile,
    block,
    C,
    pixels,
    image_step,
    c_step,
    p_step,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Where a tile begins, the ways from there, and what of it exists."""
    wide = tl.full([], 1, dtype=tl.int64)
    across = tl.cdiv(pixels, BLOCK_P)
    image = tile // across
    first = tile % across * BLOCK_P
    at = image * wide * image_step + first * wide * p_step + block * wide * (BLOCK_C * c_step)
    p = tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    mask = (p < pixels - first)[:, None] & (c < C - block * BLOCK_C)[None, :]
    return at, p[:, None] * p_step + c[None, :] * c_step, mask


@triton.jit
def _norm(mean_ptr, var_ptr, c, C, EPS: tl.constexpr, ACC: tl.constexpr):
    """Mean and 1 / sqrt(var + EPS), [1, BLOCK_C] each."""
    mean = tl.load(mean_ptr + c, mask=c < C, other=0.0).to(ACC)
    var = tl.load(var_ptr + c, mask=c < C, other=1.0).to(ACC)
    return mean[None, :], (1.0 / tl.sqrt(var + tl.full([], EPS, dtype=ACC)))[None, :]


@triton.jit
def _affine(weight_ptr, bias_ptr, slope_ptr, c, C, ACT: tl.constexpr, ACC: tl.constexpr):
    """Weight, bias and slope, [1, BLOCK_C] each."""
    weight = tl.load(weight_ptr + c, mask=c < C, other=0.0).to(ACC)
    bias = tl.load(bias_ptr + c, mask=c < C, other=0.0).to(ACC)
    slope = weight
    if ACT:
        slope = tl.load(slope_ptr + c, mask=c < C, other=0.0).to(ACC)
    return weight[None, :], bias[None, :], slope[None, :]
