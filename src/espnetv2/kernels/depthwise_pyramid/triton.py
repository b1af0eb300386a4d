"""The depth-wise pyramid in Triton: forward, gradient of the input, gradient of the weights.

A program owns a block of channels and a tile of strips, and walks down a band of rows. A strip is
STRIP columns of one image: a tuple of as many tiles [BLOCK_S, BLOCK_C], so that a value that
several taps take is loaded and widened once and stays in a register. Strips are numbered through
all images, so that a tile need not end where an image does. Strides are those of one memory
format: *_c from channel to channel, *_p from pixel to pixel; the latter are known when a kernel is
compiled, so that the way from column to column is part of the load. Weights are packed
(`layout.pack`): a block's lie together and need no mask.
"""

import torch
import triton
import triton.language as tl

from espnetv2.kernels.dispatch import interpreted

SIZES = ("H", "W", "HO", "WO", "strips", "bands", "rows_per_band")
"""Arguments whose values make no kernel of their own."""

PAIRS = tl.constexpr(torch.version.cuda is not None and not interpreted())
"""Whether two bfloat16 of a register are widened by two instructions of PTX; Triton's are three."""


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
    c, real, taps, slot = _channels(w_ptr, C, K, BLOCK_C)
    image, wo, width, fits = _strips(slot // bands, strips, W, WO, STRIP, BLOCK_S)
    w = wo * STRIDE
    x_image = x_ptr + image * C * H * W + w[:, None] * x_p + c[None, :] * x_c
    y_image = y_ptr + image * K * C * HO * WO + wo[:, None] * y_p + c[None, :] * y_c
    first = slot % bands * rows_per_band
    means = _zeros(K, BLOCK_S, BLOCK_C, ACC)
    squares = _zeros(K, BLOCK_S, BLOCK_C, ACC)
    count = tl.zeros([BLOCK_S], dtype=ACC)
    now = tl.minimum(tl.maximum(fits - wo, 0), STRIP).to(ACC)  # a strip's columns
    for ho in range(first, tl.minimum(first + rows_per_band, HO)):
        out = y_image + (ho * WO).to(tl.int64) * y_p
        x_row = x_image + (ho * STRIDE * W).to(tl.int64) * x_p
        middle = _row(x_row, w, width, real, x_p, DILATIONS, STRIP, STRIDE, ACC)
        total = _zeros(STRIP, BLOCK_S, BLOCK_C, ACC)
        share = (now / tl.maximum(count + now, 1.0))[:, None]
        new_means = ()
        new_squares = ()
        for k in tl.static_range(K):
            for level in tl.static_range(3):
                h = ho * STRIDE + (level - 1) * DILATIONS[k]
                if level == 1:
                    total = _added(total, middle, taps, k, 1, DILATIONS, STRIP, STRIDE, ACC)
                elif (h >= 0) & (h < H):
                    x_row = x_image + (h * W).to(tl.int64) * x_p
                    xs = _row(
                        x_row,
                        wo * STRIDE,
                        width,
                        real,
                        x_p,
                        _only(k, DILATIONS),
                        STRIP,
                        STRIDE,
                        ACC,
                    )
                    total = _added(total, xs, taps, k, level, DILATIONS, STRIP, STRIDE, ACC)
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
                mask = _mask(wo, p, fits, WHOLE)[:, None] & real[None, :]
                tl.store(out + k * C * y_c + p * y_p, y, mask=mask)
                written = written + (_widened(y, ACC),)
            if MOMENTS:  # of what was written; each strip of the tile has its own
                mean = tl.zeros([BLOCK_S, BLOCK_C], dtype=ACC)
                for p in tl.static_range(STRIP):
                    mean += _kept(written[p], p, now, WHOLE)
                mean *= (1 / tl.maximum(now, 1.0))[:, None]
                square = tl.zeros([BLOCK_S, BLOCK_C], dtype=ACC)
                for p in tl.static_range(STRIP):
                    apart = _kept(written[p] - mean, p, now, WHOLE)
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
    D: tl.constexpr = _farthest(DILATIONS)
    c, real, taps, slot = _channels(w_ptr, C, K, BLOCK_C)
    image, w, width, fits = _strips(slot // bands, strips, WO, W, STRIP, BLOCK_S)
    wo = w // STRIDE
    dx_image = dx_ptr + image * C * H * W + w[:, None] * x_p + c[None, :] * x_c
    g_image = g_ptr + image * K * C * HO * WO + wo[:, None] * g_p + c[None, :] * g_c
    top = slot % bands * rows_per_band
    bottom = tl.minimum(top + rows_per_band, H)
    rows = ()
    for _row_of_dx in tl.static_range(2 * D + 1):
        rows = rows + (_zeros(STRIP, BLOCK_S, BLOCK_C, ACC),)
    for ho in range(tl.maximum(top - D + STRIDE - 1, 0) // STRIDE, (bottom - 1 + D) // STRIDE + 1):
        if ho < HO:
            g_row = g_image + (ho * WO).to(tl.int64) * g_p
            suffix = _zeros(STRIP + 2 * D, BLOCK_S, BLOCK_C, ACC)
            for k in tl.static_range(K - 1, -1, -1):
                longer = ()
                for n in tl.static_range(STRIP + 2 * D):
                    if _gives(n - D, k, DILATIONS, STRIP, STRIDE):
                        seen = (wo + (n - D) // STRIDE).to(tl.uint32) < width
                        g = tl.load(
                            g_row + k * C * g_c + (n - D) // STRIDE * g_p,
                            mask=seen[:, None] & real[None, :],
                            other=0.0,
                        )
                        longer = longer + (suffix[n] + _widened(g, ACC),)
                    else:
                        longer = longer + (suffix[n],)
                suffix = longer
                for level in tl.static_range(3):
                    given = rows[_row_of(level, k, DILATIONS)]
                    for side in tl.static_range(3):
                        weight = tl.load(taps + (k * 9 + level * 3 + side) * BLOCK_C).to(ACC)
                        added = ()
                        for p in tl.static_range(STRIP):
                            if (p - (side - 1) * DILATIONS[k]) % STRIDE == 0:
                                g = suffix[_giver(side, p, k, DILATIONS)]
                                added = added + (given[p] + g * weight[None, :],)
                            else:
                                added = added + (given[p],)
                        given = added
                    changed = ()
                    for n in tl.static_range(2 * D + 1):
                        if n == _row_of(level, k, DILATIONS):
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
                tl.store(at, value, mask=_mask(w, p, ours, WHOLE)[:, None] & real[None, :])
        moved = ()
        for n in tl.static_range(2 * D + 1):
            if n + STRIDE < 2 * D + 1:
                moved = moved + (rows[n + STRIDE],)
            else:
                moved = moved + (_zeros(STRIP, BLOCK_S, BLOCK_C, ACC),)
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
    c, real, _, slot = _channels(partial_ptr, C, K, BLOCK_C)
    image, wo, width, fits = _strips(slot // bands, strips, W, WO, STRIP, BLOCK_S)
    w = wo * STRIDE
    x_image = x_ptr + image * C * H * W + w[:, None] * x_p + c[None, :] * x_c
    g_image = g_ptr + image * K * C * HO * WO + wo[:, None] * g_p + c[None, :] * g_c
    first = slot % bands * rows_per_band
    sums = _zeros(9 * K, BLOCK_S, BLOCK_C, ACC)
    for ho in range(first, tl.minimum(first + rows_per_band, HO)):
        g_row = g_image + (ho * WO).to(tl.int64) * g_p
        x_row = x_image + (ho * STRIDE * W).to(tl.int64) * x_p
        middle = _row(x_row, w, width, real, x_p, DILATIONS, STRIP, STRIDE, ACC)
        suffix = _zeros(STRIP, BLOCK_S, BLOCK_C, ACC)
        added = ()
        for k in tl.static_range(K - 1, -1, -1):
            longer = ()
            for p in tl.static_range(STRIP):
                mask = _mask(wo, p, fits, WHOLE)[:, None] & real[None, :]
                g = tl.load(g_row + k * C * g_c + p * g_p, mask=mask, other=0.0)
                longer = longer + (suffix[p] + _widened(g, ACC),)
            suffix = longer
            branch = ()
            for level in tl.static_range(3):
                h = ho * STRIDE + (level - 1) * DILATIONS[k]
                three = ()
                for side in tl.static_range(3):
                    three = three + (sums[k * 9 + level * 3 + side],)
                if level == 1:
                    three = _summed(three, suffix, middle, k, 1, DILATIONS, STRIP, STRIDE)
                elif (h >= 0) & (h < H):
                    x_row = x_image + (h * W).to(tl.int64) * x_p
                    xs = _row(
                        x_row,
                        wo * STRIDE,
                        width,
                        real,
                        x_p,
                        _only(k, DILATIONS),
                        STRIP,
                        STRIDE,
                        ACC,
                    )
                    three = _summed(three, suffix, xs, k, level, DILATIONS, STRIP, STRIDE)
                branch = branch + three
            added = branch + added
        sums = added
    for n in tl.static_range(9 * K):
        at = (slot.to(tl.int64) * 9 * K + n) * C + c
        tl.store(partial_ptr + at, tl.sum(sums[n], axis=0), mask=real)


@triton.jit
def _channels(w_ptr, C, K: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of this program: channels [BLOCK_C], which are real, their weights, tile and band."""
    blocks = tl.cdiv(C, BLOCK_C)
    block = tl.program_id(0) % blocks
    lane = tl.arange(0, BLOCK_C)
    c = block * BLOCK_C + lane
    return c, c < C, w_ptr + block * (K * 9 * BLOCK_C) + lane, tl.program_id(0) // blocks


@triton.jit
def _strips(tile, strips, W_IN, W_OUT, STRIP: tl.constexpr, BLOCK_S: tl.constexpr):
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
def _row(
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
    D: tl.constexpr = _farthest(DILATIONS)
    xs = ()
    for n in tl.static_range((STRIP - 1) * STRIDE + 2 * D + 1):
        if _takes(n - D, DILATIONS, STRIP, STRIDE):
            seen = (w + n - D).to(tl.uint32) < width
            x = tl.load(at + (n - D) * STEP, mask=seen[:, None] & real[None, :], other=0.0)
            xs = xs + (_widened(x, ACC),)
        else:
            xs = xs + (0.0,)
    return xs


@triton.jit
def _added(
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
            x = xs[_column(level, side, p, k, DILATIONS, STRIDE)]
            added = added + (total[p] + x * weight[None, :],)
        total = added
    return total


@triton.jit
def _summed(
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
            total += suffix[p] * xs[_column(level, side, p, k, DILATIONS, STRIDE)]
        out = out + (total,)
    return out


@triton.jit
def _mask(w, p: tl.constexpr, fits, WHOLE: tl.constexpr):
    """Whether the strips have a column p; those that are WHOLE have it or do not exist."""
    return w < fits if WHOLE else w + p < fits


@triton.jit
def _kept(value, p: tl.constexpr, now, WHOLE: tl.constexpr):
    """Values of column p, zero where a strip has none; those of WHOLE strips are kept."""
    return value if WHOLE else tl.where((p < now)[:, None], value, 0.0)


@triton.jit
def _widened(x, ACC: tl.constexpr):
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
def _zeros(count: tl.constexpr, S: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    out = ()
    for _ in tl.static_range(count):
        out = out + (tl.zeros([S, BLOCK_C], dtype=ACC),)
    return out


@triton.constexpr_function
def _farthest(dilations):
    return max(dilations)


@triton.constexpr_function
def _only(k, dilations):
    return (dilations[k],)


@triton.constexpr_function
def _takes(o, dilations, strip, stride):
    """Whether a tap of these dilations, of one of a strip's outputs, is in column `o`."""
    return any(o - p * stride in (-d, 0, d) for p in range(strip) for d in dilations)


@triton.constexpr_function
def _column(level, side, p, k, dilations, stride):
    """Where in `_row` the tap of output p lies: the middle row has the columns of all branches."""
    before = max(dilations) if level == 1 else dilations[k]
    return before + p * stride + (side - 1) * dilations[k]


@triton.constexpr_function
def _gives(o, k, dilations, strip, stride):
    """Whether branches up to k take the gradient at column `o` of x to one of a strip's columns."""
    reached = any(o - p in (-d, 0, d) for p in range(strip) for d in dilations[: k + 1])
    return o % stride == 0 and reached


@triton.constexpr_function
def _giver(side, p, k, dilations):
    """Where in the suffix sums the gradient lies that a tap gives to column p."""
    return max(dilations) + p - (side - 1) * dilations[k]


@triton.constexpr_function
def _row_of(level, k, dilations):
    return max(dilations) + (level - 1) * dilations[k]
