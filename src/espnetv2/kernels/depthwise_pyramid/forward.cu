// The depth-wise pyramid of stride 1 in one walk down the rows. A stage has a row of x; rows of y
// lie behind the stages, PITCH_Y chunks from group to group. MOMENTS is 1 where the moments of y
// are wanted too.

constexpr u32 PLANE_Y = GROUPS * PITCH_Y * 16, ROW_Y = K * PLANE_Y;
constexpr int PIXELS = BESIDE * COLUMNS;

// One thread's sums of products of 16 pixels of 8 channels, and what it holds for them.
struct Products {
    float y[K][ROWS][4];  // rings of the rows r - D to r + d
    float sum[K][2], square[K][2];
    u32 w[K][3][3];
    bool there[2];
};

// What row r of x gives to all branches; u is its place in the rings.
DEVICE void add_to_y(Products& p, const Places& at, int u, u32 stage) {
    u32 m[4], middle[2];
    matrices(middle, at.plain + stage);
#pragma unroll
    for (int k = 0; k < K; ++k) {
        const int d = dilation[k];
        matrices(m, at.plain + stage + aside(at.plain_second, d, d));
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            float(&sums)[4] = p.y[k][ring(u + (1 - i) * d)];
            add_product(sums, m[0], m[1], m[2], m[3], p.w[k][i][0], p.w[k][i][2]);
            add_product(sums, middle[0], middle[1], p.w[k][i][1]);
        }
    }
}

// Running sums of row r - D, as halves, to shared memory.
DEVICE void finish(Products& p, const Places& at, int u, u32 row) {
    const int lane = thread() % 32;
    const u32 to = row + (at.group * PITCH_Y + at.tile + lane / 4) * 16 + lane % 4 * 4;
    float total[4];
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float seen = p.y[k][ring(u - D)][2 * h + e];
                float& one = total[2 * h + e];
                one = k == 0 ? seen : one + seen;
                if (MOMENTS && p.there[h]) p.sum[k][e] += one, p.square[k][e] += one * one;
            }
            write_two(to + k * PLANE_Y + h * 128, halves(total[2 * h], total[2 * h + 1]));
        }
}

// Moments of what the program wrote, from all threads' sums.
DEVICE void write_moments(const Products& p, int rows, float* means, float* squares,
                          float* count) {
    barrier();
    const u32 from = shared() + thread() * 4;
    auto place = [](int quantity) { return quantity * THREADS * 4; };
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            write_float(from + place(2 * k + e), p.sum[k][e]);
            write_float(from + place(2 * (K + k) + e), p.square[k][e]);
        }
    write_float(from + place(4 * K), (p.there[0] ? 1.0f : 0.0f) + (p.there[1] ? 1.0f : 0.0f));
    barrier();
    for (int s = thread(); s < K * 8 * GROUPS; s += THREADS) {
        const int channel = s % 8, group = s / 8 % GROUPS, k = s / (8 * GROUPS);
        float sum = 0.0f, square = 0.0f, pixels = 0.0f;
        for (int warp = group; warp < THREADS / 32; warp += GROUPS)
            for (int row = 0; row < 8; ++row) {
                const u32 one = shared() + (warp * 32 + row * 4 + channel / 2) * 4;
                sum += read_float(one + place(2 * k + channel % 2));
                square += read_float(one + place(2 * (K + k) + channel % 2));
                pixels += read_float(one + place(4 * K));
            }
        pixels *= rows;
        const float mean = sum / pixels;
        const int place = k * C + s % (8 * GROUPS);
        means[place] = mean;
        const float apart = square - sum * mean;
        squares[place] = apart < 0.0f ? 0.0f : apart;  // NaN stays
        if (s == 0 && block() % BLOCKS == 0) *count = pixels;
    }
}

// x (B, H, W, C), weight (K, C, 3, 3)
//     -> y (B, H, W, K C); with MOMENTS means, squares (slots, K C), counts (slots) too
extern "C" __global__ __launch_bounds__(THREADS) void pyramid_forward(
    const u16* x, const float* weight, u16* y, float* means, float* squares, float* counts, int H,
    int W, int segments, int across, int bands, int rows) {
    const Share s = share_of(H, bands, rows);
    const Places at = places();
    Products p = {};
    read_weights(p.w, at, weight, s.channel);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int pixel = at.tile + 8 * h + thread() % 32 / 4;
        p.there[h] = pixel_of(s, pixel / COLUMNS, pixel % COLUMNS, W, segments, across).there;
    }

    // This thread brings one chunk of a row of x, and stores K / 2 of a row of y.
    const int pixel = thread() / GROUPS, part = thread() % GROUPS;
    const Pixel in = pixel_of(s, pixel / WIDE, pixel % WIDE - D, W, segments, across);
    const u16* from = x + in.place(s.above, in.column, H, W) * C + s.channel + 8 * part;
    const u32 to = shared() + (part * PITCH + pixel) * 16;
    const int first = pixel / PIXELS, other = pixel % PIXELS;  // branch and pixel that it stores
    const Pixel out = pixel_of(s, other / COLUMNS, other % COLUMNS, W, segments, across);
    u16* store = y + (out.place(s.top, out.column, H, W) * K + first) * C + s.channel + 8 * part;
    const u32 finished = shared() + STAGES * STAGE;
    const u32 mine = finished + first * PLANE_Y + (part * PITCH_Y + other) * 16;
    auto fetch = [&](int r, u32 stage) {
        if (in.there && r >= s.above && r < s.below) {
            copy(to + stage, from);
            from += W * C;
        }
        group();
    };
    auto write_row = [&](u32 turn) {
        if (out.there)
#pragma unroll
            for (int k = 0; k < K; k += 2)
                *(Chunk*)(store + k * C) = read(mine + turn + k * PLANE_Y);
        store += W * (K * C);
    };

    clear_stages();
    const int begin = s.top - D, end = s.bottom + D;
    for (int n = 0; n < STAGES - 1; ++n) fetch(begin + n, n * STAGE);
    arrived<STAGES - 2>();
    u32 stage = 0, turn = 0;
    for (int start = begin; start < end; start += ROWS) {
#pragma unroll
        for (int u = 0; u < ROWS; ++u) {  // all rings turn once
            const int r = start + u;
            if (r >= end) break;
            barrier();  // this row of x is there; the row before is done with
            fetch(r + STAGES - 1, last(stage));
            arrived<STAGES - 2>();
            if (r - D > s.top) write_row(turn ^ ROW_Y);
            meet();
#pragma unroll
            for (int k = 0; k < K; ++k)
#pragma unroll
                for (int e = 0; e < 4; ++e) p.y[k][ring(u + dilation[k])][e] = 0.0f;
            if (r >= s.above && r < s.below) add_to_y(p, at, u, stage);
            if (r - D >= s.top) finish(p, at, u, finished + turn);
            stage = next(stage), turn ^= ROW_Y;
        }
    }
    barrier();
    write_row(turn ^ ROW_Y);
#if MOMENTS
    write_moments(p, s.bottom - s.top, means + (long long)s.slot * (K * C) + s.channel,
                  squares + (long long)s.slot * (K * C) + s.channel, counts + s.slot);
#endif
}
