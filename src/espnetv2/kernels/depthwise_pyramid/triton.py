"""The depth-wise pyramid in Triton: forward, gradient of the input, gradient of the weights.

A program owns a block of channels and a tile of strips, and walks down a band of rows. A strip is
STRIP columns of one image: a tuple of as many tiles [BLOCK_S, BLOCK_C], so that a value that
several taps take is loaded and widened once and stays in a register. Strips are numbered through
all images, so that a tile need not end where an image does. Strides are those of one memory
format: *_c from channel to channel, *_p from pixel to pixel; the latter are known when a kernel is
compiled, so that the way from column to column is part of the load. Weights are packed
(`layout.pack`): a block's lie together and need no mask.
"""

import triton
import triton.language as tl

from espnetv2.kernels.depthwise_pyramid.strips import (
    channels_of,
    columns_of,
    farthest,
    giver,
    gives,
    has_column,
    kept,
    only,
    row_of,
    strips_of,
    widened,
    with_products,
    with_sums,
    zeros,
)

SIZES = ("H", "W", "HO", "WO", "strips", "bands", "rows_per_band")
"""Arguments whose values make no kernel of their own."""


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    x_ptr,
    w_ptr,
    factors_ptr,
    y_ptr,
    mean_ptr,
    square_ptr,
    count_ptr,
    C,
    x_c,
    y_c,
    H,
    W,
    HO,
    WO,
    strips,
    bands,
    rows_per_band,
    x_p: tl.constexpr,
    y_p: tl.constexpr,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIDE: tl.constexpr,
    ACT: tl.constexpr,
    MOMENTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ACC: tl.constexpr,
    STRIP: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Running sums of the branches, written once; with ACT or MOMENTS more in the same pass."""
    c, real, taps, slot = channels_of(w_ptr, C, K, BLOCK_C)
    far, to_next = c.to(tl.int64), tl.full([], 1, tl.int64) * C * y_c
    image, wo, width, fits = strips_of(slot // bands, strips, W, WO, STRIP, BLOCK_S)
    w = wo * STRIDE
    x_image = x_ptr + image * C * H * W + w[:, None] * x_p + far[None, :] * x_c
    y_image = y_ptr + image * K * C * HO * WO + wo[:, None] * y_p + far[None, :] * y_c
    first = slot % bands * rows_per_band
    means = zeros(K, BLOCK_S, BLOCK_C, ACC)
    squares = zeros(K, BLOCK_S, BLOCK_C, ACC)
    count = tl.zeros([BLOCK_S], dtype=ACC)
    now = tl.minimum(tl.maximum(fits - wo, 0), STRIP).to(ACC)  # a strip's columns
    for ho in range(first, tl.minimum(first + rows_per_band, HO)):
        out = y_image + (ho * WO).to(tl.int64) * y_p
        x_row = x_image + (ho * STRIDE * W).to(tl.int64) * x_p
        middle = columns_of(x_row, w, width, real, x_p, DILATIONS, STRIP, STRIDE, ACC)
        total = zeros(STRIP, BLOCK_S, BLOCK_C, ACC)
        share = (now / tl.maximum(count + now, 1.0))[:, None]
        new_means = ()
        new_squares = ()
        for k in tl.static_range(K):
            for level in tl.static_range(3):
                h = ho * STRIDE + (level - 1) * DILATIONS[k]
                if level == 1:
                    total = with_products(total, middle, taps, k, 1, DILATIONS, STRIP, STRIDE, ACC)
                elif (h >= 0) & (h < H):
                    x_row = x_image + (h * W).to(tl.int64) * x_p
                    xs = columns_of(
                        x_row,
                        w,
                        width,
                        real,
                        x_p,
                        only(k, DILATIONS),
                        STRIP,
                        STRIDE,
                        ACC,
                    )
                    total = with_products(total, xs, taps, k, level, DILATIONS, STRIP, STRIDE, ACC)
            if ACT:
                at = factors_ptr + k * C + c
                scale = tl.load(at, mask=real, other=0.0).to(ACC)[None, :]
                shift = tl.load(at + K * C, mask=real, other=0.0).to(ACC)[None, :]
                rise = tl.load(at + 2 * K * C, mask=real, other=0.0).to(ACC)[None, :]
                fall = tl.load(at + 3 * K * C, mask=real, other=0.0).to(ACC)[None, :]
            written = ()
            for p in tl.static_range(STRIP):
                y = total[p]
                if ACT:
                    y = y * scale + shift
                    y = y * tl.where(y > 0, rise, fall)
                y = y.to(y_ptr.dtype.element_ty)
                mask = has_column(wo, p, fits, WHOLE)[:, None] & real[None, :]
                tl.store(out + k * to_next + p * y_p, y, mask=mask)
                written = written + (widened(y, ACC),)
            if MOMENTS:  # of what was written; each strip of the tile has its own
                mean = tl.zeros([BLOCK_S, BLOCK_C], dtype=ACC)
                for p in tl.static_range(STRIP):
                    mean += kept(written[p], p, now, WHOLE)
                mean *= (1 / tl.maximum(now, 1.0))[:, None]
                square = tl.zeros([BLOCK_S, BLOCK_C], dtype=ACC)
                for p in tl.static_range(STRIP):
                    apart = kept(written[p] - mean, p, now, WHOLE)
                    square += apart * apart
                apart = mean - means[k]
                new_means = new_means + (means[k] + apart * share,)
                square += apart * apart * (share * count[:, None])
                new_squares = new_squares + (squares[k] + square,)
        if MOMENTS:
            means, squares = new_means, new_squares
            count += now
    if MOMENTS:
        pixels = tl.sum(count)
        for k in tl.static_range(K):
            mean = tl.sum(means[k] * count[:, None], axis=0) / pixels
            step = means[k] - mean[None, :]
            spread = tl.sum(squares[k] + step * step * count[:, None], axis=0)
            at = (slot.to(tl.int64) * K + k) * C + c
            tl.store(mean_ptr + at, mean, mask=real)
            tl.store(square_ptr + at, spread, mask=real)
        tl.store(count_ptr + slot, pixels)


@triton.jit(do_not_specialize=SIZES)
def grad_x_kernel(
    g_ptr,
    w_ptr,
    dx_ptr,
    C,
    x_c,
    g_c,
    H,
    W,
    HO,
    WO,
    strips,
    bands,
    rows_per_band,
    x_p: tl.constexpr,
    g_p: tl.constexpr,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIDE: tl.constexpr,
    WHOLE: tl.constexpr,
    ACC: tl.constexpr,
    STRIP: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Transposed convolutions of the suffix sums of the branches' gradients.

    Strips are of dx and start at multiples of STRIDE. Row by row of the gradient: what it gives to
    the rows of dx from D above to D below is added to as many tuples of tiles, which move up when a
    row is done.
    """
    D: tl.constexpr = farthest(DILATIONS)
    c, real, taps, slot = channels_of(w_ptr, C, K, BLOCK_C)
    far, to_next = c.to(tl.int64), tl.full([], 1, tl.int64) * C * g_c
    image, w, width, fits = strips_of(slot // bands, strips, WO, W, STRIP, BLOCK_S)
    wo = w // STRIDE
    dx_image = dx_ptr + image * C * H * W + w[:, None] * x_p + far[None, :] * x_c
    g_image = g_ptr + image * K * C * HO * WO + wo[:, None] * g_p + far[None, :] * g_c
    top = slot % bands * rows_per_band
    bottom = tl.minimum(top + rows_per_band, H)
    rows = ()
    for _row_of_dx in tl.static_range(2 * D + 1):
        rows = rows + (zeros(STRIP, BLOCK_S, BLOCK_C, ACC),)
    for ho in range(tl.maximum(top - D + STRIDE - 1, 0) // STRIDE, (bottom - 1 + D) // STRIDE + 1):
        if ho < HO:
            g_row = g_image + (ho * WO).to(tl.int64) * g_p
            suffix = zeros(STRIP + 2 * D, BLOCK_S, BLOCK_C, ACC)
            for k in tl.static_range(K - 1, -1, -1):
                longer = ()
                for n in tl.static_range(STRIP + 2 * D):
                    if gives(n - D, k, DILATIONS, STRIP, STRIDE):
                        seen = (wo + (n - D) // STRIDE).to(tl.uint32) < width
                        g = tl.load(
                            g_row + k * to_next + (n - D) // STRIDE * g_p,
                            mask=seen[:, None] & real[None, :],
                            other=0.0,
                        )
                        longer = longer + (suffix[n] + widened(g, ACC),)
                    else:
                        longer = longer + (suffix[n],)
                suffix = longer
                for level in tl.static_range(3):
                    given = rows[row_of(level, k, DILATIONS)]
                    for side in tl.static_range(3):
                        weight = tl.load(taps + (k * 9 + level * 3 + side) * BLOCK_C).to(ACC)
                        added = ()
                        for p in tl.static_range(STRIP):
                            if (p - (side - 1) * DILATIONS[k]) % STRIDE == 0:
                                g = suffix[giver(side, p, k, DILATIONS)]
                                added = added + (given[p] + g * weight[None, :],)
                            else:
                                added = added + (given[p],)
                        given = added
                    changed = ()
                    for n in tl.static_range(2 * D + 1):
                        if n == row_of(level, k, DILATIONS):
                            changed = changed + (given,)
                        else:
                            changed = changed + (rows[n],)
                    rows = changed
        for done in tl.static_range(STRIDE):  # no later row of the gradient reaches these
            h = ho * STRIDE - D + done
            ours = tl.where((h >= top) & (h < bottom), fits, 0)
            for p in tl.static_range(STRIP):
                value = rows[done][p].to(dx_ptr.dtype.element_ty)
                at = dx_image + (h * W).to(tl.int64) * x_p + p * x_p
                tl.store(at, value, mask=has_column(w, p, ours, WHOLE)[:, None] & real[None, :])
        moved = ()
        for n in tl.static_range(2 * D + 1):
            if n + STRIDE < 2 * D + 1:
                moved = moved + (rows[n + STRIDE],)
            else:
                moved = moved + (zeros(STRIP, BLOCK_S, BLOCK_C, ACC),)
        rows = moved


@triton.jit(do_not_specialize=SIZES)
def grad_weight_kernel(
    g_ptr,
    x_ptr,
    partial_ptr,
    C,
    x_c,
    g_c,
    H,
    W,
    HO,
    WO,
    strips,
    bands,
    rows_per_band,
    x_p: tl.constexpr,
    g_p: tl.constexpr,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIDE: tl.constexpr,
    WHOLE: tl.constexpr,
    ACC: tl.constexpr,
    STRIP: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Nine sums a branch over the program's pixels; the slots are added up afterwards."""
    c, real, _, slot = channels_of(partial_ptr, C, K, BLOCK_C)
    far, to_next = c.to(tl.int64), tl.full([], 1, tl.int64) * C * g_c
    image, wo, width, fits = strips_of(slot // bands, strips, W, WO, STRIP, BLOCK_S)
    w = wo * STRIDE
    x_image = x_ptr + image * C * H * W + w[:, None] * x_p + far[None, :] * x_c
    g_image = g_ptr + image * K * C * HO * WO + wo[:, None] * g_p + far[None, :] * g_c
    first = slot % bands * rows_per_band
    sums = zeros(9 * K, BLOCK_S, BLOCK_C, ACC)
    for ho in range(first, tl.minimum(first + rows_per_band, HO)):
        g_row = g_image + (ho * WO).to(tl.int64) * g_p
        x_row = x_image + (ho * STRIDE * W).to(tl.int64) * x_p
        middle = columns_of(x_row, w, width, real, x_p, DILATIONS, STRIP, STRIDE, ACC)
        suffix = zeros(STRIP, BLOCK_S, BLOCK_C, ACC)
        added = ()
        for k in tl.static_range(K - 1, -1, -1):
            longer = ()
            for p in tl.static_range(STRIP):
                mask = has_column(wo, p, fits, WHOLE)[:, None] & real[None, :]
                g = tl.load(g_row + k * to_next + p * g_p, mask=mask, other=0.0)
                longer = longer + (suffix[p] + widened(g, ACC),)
            suffix = longer
            branch = ()
            for level in tl.static_range(3):
                h = ho * STRIDE + (level - 1) * DILATIONS[k]
                three = ()
                for side in tl.static_range(3):
                    three = three + (sums[k * 9 + level * 3 + side],)
                if level == 1:
                    three = with_sums(three, suffix, middle, k, 1, DILATIONS, STRIP, STRIDE)
                elif (h >= 0) & (h < H):
                    x_row = x_image + (h * W).to(tl.int64) * x_p
                    xs = columns_of(
                        x_row,
                        w,
                        width,
                        real,
                        x_p,
                        only(k, DILATIONS),
                        STRIP,
                        STRIDE,
                        ACC,
                    )
                    three = with_sums(three, suffix, xs, k, level, DILATIONS, STRIP, STRIDE)
                branch = branch + three
            added = branch + added
        sums = added
    for n in tl.static_range(9 * K):
        at = (slot.to(tl.int64) * 9 * K + n) * C + c
        tl.store(partial_ptr + at, tl.sum(sums[n], axis=0), mask=real)
