// Both gradients of the depth-wise pyramid in one walk down the rows; K is even. A stage has a row
// of G of every branch, and the row of x that is D below.

constexpr int TAPS = 9 * K;

// What one thread brings: a chunk of every map, for each row, and G of it.
struct Chunks {
    const u16 *g, *x;
    u32 to;
    bool any;
};

DEVICE Chunks chunks_of(const Share& s, const u16* g, const u16* x, int H, int W, int segments,
                        int across) {
    const int pixel = thread() / GROUPS, part = thread() % GROUPS;
    const Pixel one =
        pixel_of(s, pixel / WIDE, pixel % WIDE - D, s.above, H, W, segments, across);
    Chunks mine;
    mine.any = one.there;
    mine.g = g + one.place * (K * C) + s.channel + 8 * part;
    mine.x = x + one.place * C + s.channel + 8 * part;
    mine.to = shared() + (part * PITCH + pixel) * 16;
    return mine;
}

// Row r of g and row r + D of x are on their way to a stage.
DEVICE void fetch(Chunks& mine, const Share& s, int r, int W, u32 stage) {
    if (mine.any && r >= s.above && r < s.below) {
#pragma unroll
        for (int k = 0; k < K; ++k) copy(mine.to + stage + k * PLANE, mine.g + k * C);
        mine.g += W * (K * C);
    }
    if (mine.any && r + D >= s.above && r + D < s.below) {
        copy(mine.to + stage + K * PLANE, mine.x);
        mine.x += W * C;
    }
    group();
}

// g of row r becomes G, from the last branch to the first.
DEVICE void sum(const Chunks& mine, const Share& s, int r, u32 stage) {
    if (!mine.any || r < s.above || r >= s.below) return;
    Chunk c[K];
#pragma unroll
    for (int k = K - 1; k >= 0; --k) c[k] = read(mine.to + stage + k * PLANE);
    float total[8];
#pragma unroll
    for (int k = K - 1; k >= 0; --k) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
            const float one = low(c[k].part[p]), other = high(c[k].part[p]);
            total[2 * p] = k == K - 1 ? one : total[2 * p] + one;
            total[2 * p + 1] = k == K - 1 ? other : total[2 * p + 1] + other;
            c[k].part[p] = halves(total[2 * p], total[2 * p + 1]);
        }
        if (k < K - 1) write(mine.to + stage + k * PLANE, c[k]);
    }
}

// One thread's sums of products of 16 pixels of 8 channels, and what it holds for them.
struct Products {
    float gradient[ROWS][4];  // of x, a ring of the rows r - D to r + D
    float sides[K][3][4];     // of the weights: right and left taps, of three rows
    float upright[K][4];      // upper and lower tap of the middle column
    float middle[K / 2][4];   // middle taps of two branches
    u32 x[ROWS][2];           // a ring of the same rows
    u32 w[K][3][3];
    u32 plain_two, turned_two;  // where rows of matrices of two branches lie
};

// What row r of G gives to gradients of x; u is its place in the rings.
DEVICE void add_to_x(Products& p, const Places& at, int u, u32 stage) {
    u32 m[4];
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const int d = dilation[k];
        matrices(m, at.plain + stage + k * PLANE + at.plain_side * d);
#pragma unroll
        for (int i = 0; i < 3; ++i)
            add_product(p.gradient[ring(u + (i - 1) * d)], m[0], m[1], m[2], m[3], p.w[k][i][2],
                        p.w[k][i][0]);
    }
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        matrices(m, p.plain_two + stage + k * PLANE);
        add_product(p.gradient[u], m[0], m[1], m[2], m[3], p.w[k][1][1], p.w[k + 1][1][1]);
#pragma unroll
        for (int b = 0; b < 2; ++b)
#pragma unroll
            for (int i = 0; i < 3; i += 2)
                add_product(p.gradient[ring(u + (i - 1) * dilation[k + b])], m[2 * b], m[2 * b + 1],
                            p.w[k + b][i][1]);
    }
}

// What row r of G and the rows of x around it give to gradients of the weights.
DEVICE void add_to_weight(Products& p, const Places& at, int u, u32 stage) {
    u32 m[4];
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const int d = dilation[k];
        transposed(m, at.turned + stage + k * PLANE + at.turned_side * d);
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const u32(&x)[2] = p.x[ring(u + (i - 1) * d)];
            add_product(p.sides[k][i], m[0], m[1], m[2], m[3], x[0], x[1]);
        }
    }
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        transposed(m, p.turned_two + stage + k * PLANE);
        add_product(p.middle[k / 2], m[0], m[1], m[2], m[3], p.x[u][0], p.x[u][1]);
        transposed(m, p.plain_two + stage + k * PLANE);
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const u32(&up)[2] = p.x[ring(u - dilation[k + b])];
            const u32(&down)[2] = p.x[ring(u + dilation[k + b])];
            add_product(p.upright[k + b], up[0], down[0], up[1], down[1], m[2 * b], m[2 * b + 1]);
        }
    }
}

// The diagonals of the sums of products, joined over the program's pixels.
DEVICE void write_sums(const Products& p, const Places& at, float* partial) {
    barrier();
    const u32 to = shared() + (thread() / 32 * TAPS * 8 + thread() % 32 / 4) * 4;
    auto keep = [&](int k, int tap, const float(&sums)[4], int half) {
        const float sum = at.odd ? sums[2 * half + 1] : sums[2 * half];
        if (at.diagonal) write_float(to + (k * 9 + tap) * 32, sum);
    };
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            keep(k, 3 * i + 2, p.sides[k][i], 0);
            keep(k, 3 * i, p.sides[k][i], 1);
        }
        keep(k, 1, p.upright[k], 0);
        keep(k, 4, p.middle[k / 2], k % 2);
        keep(k, 7, p.upright[k], 1);
    }
    barrier();
    for (int s = thread(); s < TAPS * 8 * GROUPS; s += THREADS) {
        const int channel = s % 8, tap = s / 8 % TAPS, group = s / (8 * TAPS);
        float total = 0.0f;
        for (int warp = group; warp < THREADS / 32; warp += GROUPS)
            total += read_float(shared() + ((warp * TAPS + tap) * 8 + channel) * 4);
        partial[tap * C + 8 * group + channel] = total;
    }
}

// x (B, H, W, C), g (B, H, W, K C), weight (K, C, 3, 3)
//     -> dx (B, H, W, C), partial (slots, K, 9, C), to be added
extern "C" __global__ __launch_bounds__(THREADS) void pyramid_backward(
    const u16* x, const u16* g, const float* weight, u16* dx, float* partial, int H, int W,
    int segments, int across, int bands, int rows) {
    const Share s = share_of(H, bands, rows);
    Chunks mine = chunks_of(s, g, x, H, W, segments, across);
    const Places at = places();
    Products p = {};
    read_weights(p.w, at, weight, s.channel);
    p.plain_two = at.plain + (thread() & 16 ? PLANE : 0);
    p.turned_two = at.turned + (thread() & 8 ? PLANE : 0);

    u16* out[2];  // of the two pixels of dx that this thread has
    bool writes[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int lane = thread() % 32, pixel = at.tile + 8 * h + lane / 4;
        const Pixel one =
            pixel_of(s, pixel / COLUMNS, pixel % COLUMNS, s.top, H, W, segments, across);
        writes[h] = one.there;
        out[h] = dx + one.place * C + s.channel + 8 * at.group + lane % 4 * 2;
    }

    clear_stages();
    const int begin = s.top - 2 * D, end = s.bottom + D;
    for (int n = 0; n < STAGES - 1; ++n) fetch(mine, s, begin + n, W, n * STAGE);
    arrived<STAGES - 2>();  // of row `begin` only x, if any

    u32 stage = 0;
    for (int start = begin; start < end; start += ROWS) {
#pragma unroll
        for (int u = 0; u < ROWS; ++u) {  // all rings turn once
            const int r = start + u;
            if (r >= end) break;
            barrier();  // the row before is done with; G of this one is there
            fetch(mine, s, r + STAGES - 1, W, last(stage));
            arrived<STAGES - 2>();
            sum(mine, s, r + 1, next(stage));
            meet();
            u32(&fresh)[2] = p.x[ring(u + D)];
            fresh[0] = fresh[1] = 0;
            if (r + D >= s.above && r + D < s.below)
                transposed(fresh, at.plain + stage + K * PLANE);
            if (r >= s.above && r < s.below) add_to_x(p, at, u, stage);
            if (r >= s.top && r < s.bottom) add_to_weight(p, at, u, stage);
            float(&done)[4] = p.gradient[ring(u - D)];
            if (r - D >= s.top) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    if (writes[h]) *(u32*)out[h] = halves(done[2 * h], done[2 * h + 1]);
                    out[h] += W * C;
                }
            }
#pragma unroll
            for (int e = 0; e < 4; ++e) done[e] = 0.0f;
            stage = next(stage);
        }
    }
    write_sums(p, at, partial + (long long)s.slot * TAPS * C + s.channel);
}
