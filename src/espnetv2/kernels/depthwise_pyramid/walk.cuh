// What both walks down the rows have in common: forward.cu, backward.cu; halves, channels last.
// docs/kernels.md derives them.
//
// Defined before this text: K branches, their DILATIONS, the LARGEST of these, STRIDE, C channels.
// Rows and columns are those of y. A segment is COLUMNS columns of an image (a multiple of 8, twice
// the largest dilation at least); a program takes BESIDE segments, GROUPS times 8 channels, which
// are PITCH chunks of 8 apart in shared memory, and a band of rows. There STAGES rows of PLANES
// maps lie in a ring.

__device__ constexpr int dilation[K] = DILATIONS;
constexpr int D = LARGEST, ROWS = 2 * D + STRIDE;  // of x, which rings hold
constexpr int HALO = (D + STRIDE - 1) / STRIDE, WIDE = COLUMNS + 2 * HALO;
constexpr int BLOCKS = C / (8 * GROUPS);
constexpr int THREADS = BESIDE * COLUMNS * GROUPS * 2;
constexpr u32 PLANE = GROUPS * PITCH * 16, STAGE = PLANES * PLANE;

// Place in a ring of ROWS rows.
DEVICE constexpr int ring(int row) { return (row + 2 * ROWS) % ROWS; }

DEVICE u32 next(u32 stage) { return stage == (STAGES - 1) * STAGE ? 0 : stage + STAGE; }
DEVICE u32 last(u32 stage) { return stage == 0 ? (STAGES - 1) * STAGE : stage - STAGE; }

// A program's part: which channels, segments and rows, and which rows it takes for them.
struct Share {
    int slot, channel, first, top, bottom, above, below;
};

DEVICE Share share_of(int H, int bands, int rows) {
    Share s;
    s.slot = block() / BLOCKS, s.channel = block() % BLOCKS * 8 * GROUPS;
    s.first = s.slot / bands * BESIDE;
    s.top = s.slot % bands * rows, s.bottom = min(H, s.top + rows);
    s.above = max(0, s.top - HALO), s.below = min(H, s.bottom + HALO);
    return s;
}

// A pixel of a segment's row; before the segment, or behind it, one of its neighbours.
struct Pixel {
    int image, column;
    bool there;

    // Where a map has it, in pixels.
    DEVICE long long place(int row, int column, int H, int W) const {
        return ((long long)image * H + row) * W + column;
    }
};

DEVICE Pixel pixel_of(const Share& s, int beside, int column, int W, int segments, int across) {
    const int segment = s.first + beside, x = segment % across * COLUMNS + column;
    const bool there = beside < BESIDE && segment < segments && x >= 0 && x < W;
    return {segment / across, x, there};
}

// Where a warp's operands lie: the row of a matrix that this thread names, of 16 pixels from `tile`
// on and one group of 8 channels; and which value of a diagonal it has, if any.
struct Places {
    int tile, group;
    u32 plain, turned;                // of a transposed matrix
    u32 plain_second, turned_second;  // 16 where it is one of an operand's second matrices, else 0
    bool diagonal, odd;
};

DEVICE Places places() {
    const int lane = thread() % 32, warp = thread() / 32;
    Places p;
    p.group = warp % GROUPS, p.tile = warp / GROUPS * 16;
    auto at = [&](int pixel) {
        const int column = pixel / COLUMNS * WIDE + pixel % COLUMNS + HALO;
        return shared() + (p.group * PITCH + column) * 16;
    };
    p.plain = at(p.tile + lane % 16), p.turned = at(p.tile + lane % 8 + lane / 16 * 8);
    p.plain_second = lane & 16, p.turned_second = (lane & 8) * 2;
    p.diagonal = lane % 4 == lane / 8, p.odd = lane / 4 % 2;
    return p;
}

// From there to the left column for an operand's first matrices, to the right one for its second.
DEVICE u32 aside(u32 second, int left, int right) { return second * (left + right) - 16 * left; }

// From there to the plane behind for the second.
DEVICE u32 behind(u32 second) { return second * (PLANE / 16); }

// Weights as diagonals: half of an operand.
DEVICE void read_weights(u32 (&w)[K][3][3], const Places& p, const float* weight, int channel) {
    const int c = channel + 8 * p.group + thread() % 32 / 4;
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) {
            const float f = p.diagonal ? weight[(k * C + c) * 9 + tap] : 0.0f;
            w[k][tap / 3][tap % 3] = p.odd ? halves(0.0f, f) : halves(f, 0.0f);
        }
}

DEVICE void clear_stages() {
    for (u32 to = thread() * 16; to < STAGES * STAGE; to += THREADS * 16)
        write(shared() + to, Chunk{});
    barrier();
}
