"""The depth-wise pyramid in Triton: forward, gradient of the input, gradient of the weights.

A program owns a block of channels and a tile of columns; it walks down a band of rows, image
after image, so that rows which several taps read come from the cache. Tiles are [P, BLOCK_C], P
pixels of BLOCK_W columns. Strides are those of one memory format: *_c from channel to channel,
*_p from pixel to pixel. Weights are packed (`layout.pack`): a block's lie together, so that they
need no mask, and the way from tap to tap is known when the kernel is compiled. Images are found by
offsets of 64 bits, what lies in one by offsets of INDEX: 32 bits where that is enough.
"""

import triton
import triton.language as tl

SIZES = ("B", "H", "W", "HO", "WO", "rows_per_band", "images_per_group", "bands", "columns")
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
    B,
    C,
    H,
    W,
    HO,
    WO,
    x_c,
    x_p,
    y_c,
    y_p,
    rows_per_band,
    images_per_group,
    bands,
    columns,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIDE: tl.constexpr,
    ACT: tl.constexpr,
    MOMENTS: tl.constexpr,
    ACC: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Running sums of the branches, written once; with ACT or MOMENTS more in the same pass."""
    P: tl.constexpr = BLOCK_H * BLOCK_W
    c, block, band, column, group, slot = _place(C, bands, columns, INDEX, BLOCK_C)
    real = c < C
    wide = tl.full([], 1, dtype=tl.int64)
    near = tl.full([], 1, dtype=INDEX)
    taps = w_ptr + block * (K * 9 * BLOCK_C) + tl.arange(0, BLOCK_C)
    pixel = tl.arange(0, P)
    wo = column * BLOCK_W + pixel % BLOCK_W  # [P]
    first = band * rows_per_band
    last = tl.minimum(first + rows_per_band, HO)
    means = _zeros(K, P, BLOCK_C, ACC)
    squares = _zeros(K, P, BLOCK_C, ACC)
    count = tl.zeros([P], dtype=ACC)
    for image in range(group * images_per_group, tl.minimum((group + 1) * images_per_group, B)):
        x_image = x_ptr + image * wide * C * H * W + c[None, :] * x_c
        y_image = y_ptr + image * wide * K * C * HO * WO
        for top in range(first, last, BLOCK_H):
            ho = top + pixel // BLOCK_W  # [P]
            inside = (ho < last) & (wo < WO)
            mask = inside[:, None] & real[None, :]
            middle = x_image + (ho * near * W + wo)[:, None] * (STRIDE * x_p)
            out = y_image + (ho * near * WO + wo)[:, None] * y_p
            total = tl.zeros([P, BLOCK_C], dtype=ACC)
            new_means = ()
            new_squares = ()
            if MOMENTS:
                now = inside.to(ACC)
                share = (now / tl.maximum(count + now, 1.0))[:, None]
                before = share * count[:, None]
                count += now
            for k in tl.static_range(K):
                for tap in tl.static_range(9):
                    down = (tap // 3 - 1) * DILATIONS[k]
                    right = (tap % 3 - 1) * DILATIONS[k]
                    h = ho * STRIDE + down
                    w = wo * STRIDE + right
                    seen = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
                    x = tl.load(
                        middle + (down * near * W + right) * x_p,
                        mask=seen[:, None] & real[None, :],
                        other=0.0,
                    )
                    weight = tl.load(taps + (k * 9 + tap) * BLOCK_C).to(ACC)
                    total += x.to(ACC) * weight[None, :]
                y = total
                if ACT:
                    at = factors_ptr + k * C + c
                    scale = tl.load(at, mask=real, other=0.0).to(ACC)
                    shift = tl.load(at + K * C, mask=real, other=0.0).to(ACC)
                    rise = tl.load(at + 2 * K * C, mask=real, other=0.0).to(ACC)
                    fall = tl.load(at + 3 * K * C, mask=real, other=0.0).to(ACC)
                    y = total * scale[None, :] + shift[None, :]
                    y = y * tl.where(y > 0, rise[None, :], fall[None, :])
                rounded = y.to(y_ptr.dtype.element_ty)
                tl.store(out + (k * C + c)[None, :] * y_c, rounded, mask=mask)
                if MOMENTS:  # of what was written; each pixel of the tile has its own
                    apart = rounded.to(ACC) - means[k]
                    new_means = new_means + (means[k] + apart * share,)
                    new_squares = new_squares + (squares[k] + apart * apart * before,)
            if MOMENTS:
                means, squares = new_means, new_squares
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
    B,
    C,
    H,
    W,
    HO,
    WO,
    x_c,
    x_p,
    g_c,
    g_p,
    rows_per_band,
    images_per_group,
    bands,
    columns,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    FIRST: tl.constexpr,
    STRIDE: tl.constexpr,
    ACC: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Transposed convolutions of the suffix sums of the branches' gradients.

    Row by row of the gradient: what it gives to the rows of dx from D above to D below is added
    to as many tiles in registers, which move up when a row is done. FIRST[D + s] is the nearest
    branch with taps s columns away.
    """
    D: tl.constexpr = len(FIRST) // 2
    c, block, band, column, group, _ = _place(C, bands, columns, INDEX, BLOCK_C)
    real = c < C
    wide = tl.full([], 1, dtype=tl.int64)
    near = tl.full([], 1, dtype=INDEX)
    taps = w_ptr + block * (K * 9 * BLOCK_C) + tl.arange(0, BLOCK_C)
    w = column * BLOCK_W + tl.arange(0, BLOCK_W)  # [BLOCK_W]
    top = band * rows_per_band
    bottom = tl.minimum(top + rows_per_band, H)
    first = tl.maximum(top - D + STRIDE - 1, 0) // STRIDE
    last = (bottom - 1 + D) // STRIDE
    for image in range(group * images_per_group, tl.minimum((group + 1) * images_per_group, B)):
        dx_image = dx_ptr + image * wide * C * H * W + c[None, :] * x_c + w[:, None] * x_p
        g_image = g_ptr + image * wide * K * C * HO * WO + c[None, :] * g_c
        rows = ()
        for _row in tl.static_range(2 * D + 1):
            rows = rows + (tl.zeros([BLOCK_W, BLOCK_C], dtype=ACC),)
        for ho in range(first, last + 1):
            width = tl.where(ho * near < HO, WO, 0)
            g_row = g_image + ho * near * WO * g_p
            for place in tl.static_range(2 * D + 1):
                far = w - (place - D)  # where the gradient lies, in columns of x
                wo = far // STRIDE
                seen = (far >= 0) & (far % STRIDE == 0) & (wo < width)
                suffix = tl.zeros([BLOCK_W, BLOCK_C], dtype=ACC)
                for k in tl.static_range(K - 1, -1, -1):
                    if k >= FIRST[place]:
                        g = tl.load(
                            g_row + k * near * C * g_c + (wo * near)[:, None] * g_p,
                            mask=seen[:, None] & real[None, :],
                            other=0.0,
                        )
                        suffix += g.to(ACC)
                        if place == D or place == D - DILATIONS[k] or place == D + DILATIONS[k]:
                            added = ()
                            for n in tl.static_range(2 * D + 1):
                                if n == D - DILATIONS[k] or n == D or n == D + DILATIONS[k]:
                                    tap = 4 + 3 * ((n > D) - (n < D)) + (place > D) - (place < D)
                                    weight = tl.load(taps + (k * 9 + tap) * BLOCK_C).to(ACC)
                                    added = added + (rows[n] + suffix * weight[None, :],)
                                else:
                                    added = added + (rows[n],)
                            rows = added
            for done in tl.static_range(STRIDE):  # no later row of the gradient reaches these
                h = ho * STRIDE - D + done
                mask = (w < tl.where((h >= top) & (h < bottom), W, 0))[:, None] & real[None, :]
                value = rows[done].to(dx_ptr.dtype.element_ty)
                tl.store(dx_image + h * near * W * x_p, value, mask=mask)
            moved = ()
            for n in tl.static_range(2 * D + 1):
                if n + STRIDE < 2 * D + 1:
                    moved = moved + (rows[n + STRIDE],)
                else:
                    moved = moved + (tl.zeros([BLOCK_W, BLOCK_C], dtype=ACC),)
            rows = moved


@triton.jit(do_not_specialize=SIZES)
def grad_weight_kernel(
    g_ptr,
    x_ptr,
    partial_ptr,
    B,
    C,
    H,
    W,
    HO,
    WO,
    x_c,
    x_p,
    g_c,
    g_p,
    rows_per_band,
    images_per_group,
    bands,
    columns,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STRIDE: tl.constexpr,
    ACC: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Nine sums of one branch over the program's pixels; the slots are added up afterwards."""
    P: tl.constexpr = BLOCK_H * BLOCK_W
    c, _, band, column, group, slot = _place(C, bands, columns, INDEX, BLOCK_C)
    branch = tl.program_id(1)
    dilation = tl.full([], DILATIONS[0], dtype=tl.int32)
    for k in tl.static_range(1, K):
        dilation = tl.where(branch == k, DILATIONS[k], dilation)
    real = c < C
    wide = tl.full([], 1, dtype=tl.int64)
    near = tl.full([], 1, dtype=INDEX)
    pixel = tl.arange(0, P)
    wo = column * BLOCK_W + pixel % BLOCK_W  # [P]
    first = band * rows_per_band
    last = tl.minimum(first + rows_per_band, HO)
    sums = ()
    for _tap in tl.static_range(9):
        sums = sums + (tl.zeros([P, BLOCK_C], dtype=ACC),)
    for image in range(group * images_per_group, tl.minimum((group + 1) * images_per_group, B)):
        x_image = x_ptr + image * wide * C * H * W + c[None, :] * x_c
        g_image = g_ptr + image * wide * K * C * HO * WO + c[None, :] * g_c
        for top in range(first, last, BLOCK_H):
            ho = top + pixel // BLOCK_W  # [P]
            inside = (ho < last) & (wo < WO)
            middle = x_image + (ho * near * W + wo)[:, None] * (STRIDE * x_p)
            here = g_image + (ho * near * WO + wo)[:, None] * g_p
            suffix = tl.zeros([P, BLOCK_C], dtype=ACC)
            for k in tl.static_range(K):
                width = tl.where(branch <= k, WO, 0)
                g = tl.load(
                    here + k * near * C * g_c,
                    mask=(inside & (wo < width))[:, None] & real[None, :],
                    other=0.0,
                )
                suffix += g.to(ACC)
            added = ()
            for tap in tl.static_range(9):
                down = (tap // 3 - 1) * dilation
                right = (tap % 3 - 1) * dilation
                h = ho * STRIDE + down
                w = wo * STRIDE + right
                seen = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
                x = tl.load(
                    middle + (down * near * W + right) * x_p,
                    mask=seen[:, None] & real[None, :],
                    other=0.0,
                )
                added = added + (sums[tap] + suffix * x.to(ACC),)
            sums = added
    for tap in tl.static_range(9):
        at = ((slot.to(tl.int64) * K + branch) * 9 + tap) * C + c
        tl.store(partial_ptr + at, tl.sum(sums[tap], axis=0), mask=real)


@triton.jit
def _place(C, bands, columns, INDEX: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of this program: channels [BLOCK_C], their block, band, tile, group of images, slot."""
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    slot = program // blocks
    block = (program % blocks).to(INDEX)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    column = slot % columns
    band = slot // columns % bands
    group = slot // (columns * bands)
    return c, block, band, column, group, slot


@triton.jit
def _zeros(count: tl.constexpr, P: tl.constexpr, BLOCK_C: tl.constexpr, ACC: tl.constexpr):
    out = ()
    for _ in tl.static_range(count):
        out = out + (tl.zeros([P, BLOCK_C], dtype=ACC),)
    return out
