// Both gradients of the depth-wise pyramid in one walk down the rows; K is even. A stage has a row
// r of G of every branch, and of x the STRIDE rows that end D below STRIDE r, their columns dealt
// out by their remainders: planes of x are of row h, remainder q.

constexpr int S = STRIDE, TAPS = 9 * K;

DEVICE constexpr u32 plane_of_x(int h, int q) { return (K + h * S + q) * PLANE; }

// A branch's right tap sees x in column S m + q where its column is m - left(d), the left tap where
// it is m + right(d); the middle one sees columns S m.
DEVICE constexpr int left(int d) { return d / S; }
DEVICE constexpr int right(int d) { return (d + S - 1) / S; }
DEVICE constexpr int remainder(int d) { return d % S; }

// What one thread brings: a chunk of every map, for each row, and G of it.
struct Chunks {
    const u16 *g, *x;
    u32 to;
    bool any, has[S];  // of G; of x, by remainders
};

DEVICE Chunks chunks_of(const Share& s, const u16* g, const u16* x, int H, int W, int segments,
                        int across) {
    const int pixel = thread() / GROUPS, channel = s.channel + thread() % GROUPS * 8;
    const int HO = (H + S - 1) / S, WO = (W + S - 1) / S, column = pixel % WIDE - HALO;
    const Pixel one = pixel_of(s, pixel / WIDE, column, WO, segments, across);
    Chunks mine;
    mine.any = one.there;
#pragma unroll
    for (int q = 0; q < S; ++q)
        mine.has[q] = one.there && column >= 0 && column < COLUMNS && one.column * S + q < W;
    mine.g = g + one.place(s.above, one.column, HO, WO) * (K * C) + channel;
    mine.x = x + one.place(max(0, s.top * S - D), one.column * S, H, W) * C + channel;
    mine.to = shared() + (thread() % GROUPS * PITCH + pixel) * 16;
    return mine;
}

// Whether row of x is one that G of the program's rows sees.
DEVICE bool sees(const Share& s, int row, int H) {
    return row >= max(0, s.top * S - D) && row < min(H, (s.bottom - 1) * S + D + 1);
}

// Row r of g and rows of x are on their way to a stage.
DEVICE void fetch(Chunks& mine, const Share& s, int r, int H, int W, u32 stage) {
    if (mine.any && r >= s.above && r < s.below) {
#pragma unroll
        for (int k = 0; k < K; ++k) copy(mine.to + stage + k * PLANE, mine.g + k * C);
        mine.g += (W + S - 1) / S * (K * C);
    }
#pragma unroll
    for (int h = 0; h < S; ++h)
        if (sees(s, r * S + D - S + 1 + h, H)) {
#pragma unroll
            for (int q = 0; q < S; ++q)
                if (mine.has[q]) copy(mine.to + stage + plane_of_x(h, q), mine.x + q * C);
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

// One thread's sums of products of 16 pixels of 8 channels, and what it holds for them. Rings of
// rows of x begin with row S r - D.
struct Products {
    float gradient[S][ROWS][4];  // of x, by remainders
    float sides[K][3][4];        // of the weights: right and left taps, of three rows
    float upright[K][4];         // upper and lower tap of the middle column
    float middle[K / 2][4];      // middle taps of two branches
    u32 x[S][ROWS][2];           // by remainders
    u32 w[K][3][3];
};

// What row r of G gives to gradients of x; row S r has place u in the rings.
DEVICE void add_to_x(Products& p, const Places& at, int u, u32 stage) {
    u32 m[4];
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const int d = dilation[k];
        const u32 to = aside(at.plain_second, left(d), right(d));
        matrices(m, at.plain + stage + k * PLANE + to);
#pragma unroll
        for (int i = 0; i < 3; ++i)
            add_product(p.gradient[remainder(d)][ring(u + (i - 1) * d)], m[0], m[1], m[2], m[3],
                        p.w[k][i][2], p.w[k][i][0]);
    }
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        matrices(m, at.plain + stage + k * PLANE + behind(at.plain_second));
        add_product(p.gradient[0][u], m[0], m[1], m[2], m[3], p.w[k][1][1], p.w[k + 1][1][1]);
#pragma unroll
        for (int b = 0; b < 2; ++b)
#pragma unroll
            for (int i = 0; i < 3; i += 2)
                add_product(p.gradient[0][ring(u + (i - 1) * dilation[k + b])], m[2 * b],
                            m[2 * b + 1], p.w[k + b][i][1]);
    }
}

// What row r of G and the rows of x around it give to gradients of the weights.
DEVICE void add_to_weight(Products& p, const Places& at, int u, u32 stage) {
    u32 m[4];
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const int d = dilation[k];
        const u32 to = aside(at.turned_second, left(d), right(d));
        transposed(m, at.turned + stage + k * PLANE + to);
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const u32(&x)[2] = p.x[remainder(d)][ring(u + (i - 1) * d)];
            add_product(p.sides[k][i], m[0], m[1], m[2], m[3], x[0], x[1]);
        }
    }
#pragma unroll
    for (int k = 0; k < K; k += 2) {
        transposed(m, at.plain + stage + k * PLANE + behind(at.plain_second));
        add_product(p.middle[k / 2], m[0], m[2], m[1], m[3], p.x[0][u][0], p.x[0][u][1]);
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            const u32(&up)[2] = p.x[0][ring(u - dilation[k + b])];
            const u32(&down)[2] = p.x[0][ring(u + dilation[k + b])];
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

// x (B, H, W, C), g (B, H', W', K C), weight (K, C, 3, 3)
//     -> dx (B, H, W, C), partial (slots, K, 9, C), to be added
extern "C" __global__ __launch_bounds__(THREADS) void pyramid_backward(
    const u16* x, const u16* g, const float* weight, u16* dx, float* partial, int H, int W,
    int segments, int across, int bands, int rows) {
    const Share s = share_of((H + S - 1) / S, bands, rows);
    Chunks mine = chunks_of(s, g, x, H, W, segments, across);
    const Places at = places();
    Products p = {};
    read_weights(p.w, at, weight, s.channel);

    u16* out[2];  // the first of the pixels of dx that this thread has, of two columns of G
    bool writes[2][S];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int lane = thread() % 32, pixel = at.tile + 8 * h + lane / 4;
        const Pixel one = pixel_of(s, pixel / COLUMNS, pixel % COLUMNS, (W + S - 1) / S, segments,
                                   across);
#pragma unroll
        for (int q = 0; q < S; ++q) writes[h][q] = one.there && one.column * S + q < W;
        out[h] = dx + one.place(s.top * S, one.column * S, H, W) * C + s.channel + 8 * at.group +
                 lane % 4 * 2;
    }

    clear_stages();
    const int begin = s.top - 2 * D / S, end = s.bottom + HALO;
    for (int n = 0; n < STAGES - 1; ++n) fetch(mine, s, begin + n, H, W, n * STAGE);
    arrived<STAGES - 2>();  // of row `begin` only x, if any

    u32 stage = 0;
    for (int start = begin; start < end; start += ROWS / S) {
#pragma unroll
        for (int turn = 0; turn < ROWS / S; ++turn) {  // all rings turn once
            const int r = start + turn, u = turn * S;
            if (r >= end) break;
            barrier();  // the row before is done with; G of this one is there
            fetch(mine, s, r + STAGES - 1, H, W, last(stage));
            arrived<STAGES - 2>();
            sum(mine, s, r + 1, next(stage));
            meet();
#pragma unroll
            for (int h = 0; h < S; ++h) {
                const int below = D - S + 1 + h;
                const bool seen = sees(s, r * S + below, H);
#pragma unroll
                for (int q = 0; q < S; ++q) {
                    u32(&fresh)[2] = p.x[q][ring(u + below)];
                    fresh[0] = fresh[1] = 0;
                    if (seen) transposed(fresh, at.plain + stage + plane_of_x(h, q));
                }
            }
            if (r >= s.above && r < s.below) add_to_x(p, at, u, stage);
            if (r >= s.top && r < s.bottom) add_to_weight(p, at, u, stage);
#pragma unroll
            for (int h = 0; h < S; ++h) {
                const int row = r * S - D + h;
                const bool done = row >= s.top * S && row < min(H, s.bottom * S);
#pragma unroll
                for (int q = 0; q < S; ++q) {
                    float(&sums)[4] = p.gradient[q][ring(u - D + h)];
#pragma unroll
                    for (int e = 0; e < 2; ++e)
                        if (done && writes[e][q])
                            *(u32*)(out[e] + q * C) = halves(sums[2 * e], sums[2 * e + 1]);
#pragma unroll
                    for (int e = 0; e < 4; ++e) sums[e] = 0.0f;
                }
                if (done) out[0] += W * C, out[1] += W * C;
            }
            stage = next(stage);
        }
    }
    write_sums(p, at, partial + (long long)s.slot * TAPS * C + s.channel);
}
