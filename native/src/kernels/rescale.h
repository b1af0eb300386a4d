// A depth-wise 3x3 convolution of an enlarged map, pooled back: as sums over windows of the map
// itself. Rows first: for each of the three taps to the right there is one line of sums, whose
// weights, of a row and a tap, are the same for all columns. Where windows follow each other as
// those of an even width do, lines stay in registers.
#pragma once
#include "kernels/vector.h"

namespace espnetv2 {
namespace {

constexpr int kLine = 64;        // columns of the lines
constexpr int kMostWindow = 12;  // rows or columns of a window
constexpr int kColumnsTogether = 4;

// Columns [first, end) of the map: of each, the three sums over the rows of a window.
INLINE void sum_rows(const Value* x, Index x_row, const float (*factors)[3][kLanes], int rows,
                     int columns, float (*line)[3][kLanes]) {
  for (int c = 0; c < columns; c += kColumnsTogether) {
    const int some = columns - c < kColumnsTogether ? columns - c : kColumnsTogether;
    Vector sum[kColumnsTogether][3] = {};
    for (int r = 0; r < rows; ++r) {
      const Vector left = load(factors[r][0]), middle = load(factors[r][1]);
      const Vector right = load(factors[r][2]);
      UNROLL for (int i = 0; i < kColumnsTogether; ++i) {
        // behind the last column, the last one again
        const Vector value = load(x + r * x_row + (c + (i < some ? i : some - 1)) * kLanes);
        sum[i][0] += left * value;
        sum[i][1] += middle * value;
        sum[i][2] += right * value;
      }
    }
    UNROLL for (int i = 0; i < kColumnsTogether; ++i) {
      UNROLL for (int tap = 0; tap < 3; ++tap) store(line[c + i][tap], sum[i][tap]);
    }
  }
}

// What each row of the window weighs, for each tap to the right.
INLINE void find_factors(const float* row_weights, const float* weights, int rows,
                         float (*factors)[3][kLanes]) {
  for (int r = 0; r < rows; ++r) {
    for (int right = 0; right < 3; ++right) {
      Vector sum = zero();
      for (int down = 0; down < 3; ++down) {
        sum += load(weights + (down * 3 + right) * kLanes) * row_weights[r * 3 + down];
      }
      store(factors[r][right], sum);
    }
  }
}

using Factors = float[kMostWindow][3][kLanes];

INLINE void rescale_part(const RescaleArgs& a, int y, int block, int x, int end,
                         const Factors& factors) {
  alignas(4 * kLanes) float line[kLine + kMostWindow + kColumnsTogether][3][kLanes];
  const int taps = a.window_columns;
  const int32_t first = a.columns[2 * x], last = a.columns[2 * end - 1];
  const Value* from = map(a.x) + a.rows[2 * y] * a.x_row + block * a.x_block + first * kLanes;
  sum_rows(from, a.x_row, factors, a.window_rows, last - first, line);
  const Vector bias = load(a.bias + block * kLanes);
  const Vector rise = a.rise ? load(a.rise + block * kLanes) : all(1.0f);
  const Vector fall = a.rise ? load(a.fall + block * kLanes) : all(1.0f);
  const Index out = y * a.out_row + block * a.out_block;
  for (; x < end; ++x) {
    const float* weight = a.column_weights + static_cast<Index>(x) * taps * 3;
    const float (*at)[3][kLanes] = line + (a.columns[2 * x] - first);
    Vector sum[3] = {bias, zero(), zero()};
    for (int c = 0; c < taps; ++c) {
      UNROLL for (int tap = 0; tap < 3; ++tap) sum[tap] += load(at[c][tap]) * weight[c * 3 + tap];
    }
    put(a.out, a.out_wide, out + x * kLanes, slopes(sum[0] + sum[1] + sum[2], rise, fall));
  }
}

// Columns [x, end) whose windows of `kTaps` rows and columns follow each other, as `even_window`
// says. Each new column of the map is summed once, then added to all that look at it.
template <int kTaps>
INLINE void even_part(const RescaleArgs& a, int y, int block, int x, int end,
                      const Factors& factors) {
  constexpr int kStep = kTaps == 3 ? 1 : 2;  // neighbours that have the same window
  constexpr int kOpen = kTaps / kStep;       // windows that a column lies in
  const Value* from =
      map(a.x) + a.rows[2 * y] * a.x_row + block * a.x_block + a.columns[2 * x] * kLanes;
  const Vector bias = load(a.bias + block * kLanes);
  const Vector rise = a.rise ? load(a.rise + block * kLanes) : all(1.0f);
  const Vector fall = a.rise ? load(a.fall + block * kLanes) : all(1.0f);
  const Index out = y * a.out_row + block * a.out_block;
  Vector sum[kOpen][kStep] = {};
  for (int now = x; now < end + (kOpen - 1) * kStep; now += kStep, from += kStep * kLanes) {
    const float* weight[kOpen];
    UNROLL for (int open = 0; open < kOpen; ++open) {
      const int own = now - open * kStep;  // outside nothing is stored
      weight[open] = a.column_weights + Index{own < x ? x : own < end ? own : x} * kTaps * 3;
    }
    UNROLL for (int i = 0; i < kStep; ++i) sum[0][i] = bias;
    UNROLL for (int c = 0; c < kStep; ++c) {
      Vector line[3];
      UNROLL for (int r = 0; r < kTaps; ++r) {
        const Vector value = in_register(load(from + r * a.x_row + c * kLanes));
        UNROLL for (int tap = 0; tap < 3; ++tap) {
          const Vector own = load(factors[r][tap]) * value;
          line[tap] = r ? line[tap] + own : own;
        }
      }
      UNROLL for (int open = 0; open < kOpen; ++open) {
        UNROLL for (int i = 0; i < kStep; ++i) {
          UNROLL for (int tap = 0; tap < 3; ++tap) {
            const int pixel = open * kStep + c;
            if (!even_weight(kTaps, i, pixel, tap)) continue;
            sum[open][i] += line[tap] * weight[open][(i * kTaps + pixel) * 3 + tap];
          }
        }
      }
    }
    const int done = now - (kOpen - 1) * kStep;
    UNROLL for (int i = 0; i < kStep; ++i) {
      const Vector value = slopes(sum[kOpen - 1][i], rise, fall);
      if (done >= x) put(a.out, a.out_wide, out + (done + i) * kLanes, value);
      UNROLL for (int open = kOpen - 1; open > 0; --open) sum[open][i] = sum[open - 1][i];
    }
  }
}

void rescale(const RescaleArgs& a) {
  alignas(4 * kLanes) Factors factors;
  const int even_end = a.window_rows == a.window_columns ? a.even_end : 0;
  for (int x = 0; x < a.width;) {
    const bool even = x >= a.even && x < even_end;
    const int most = even ? even_end : x < even_end ? a.even : a.width;
    int end = x + 1;  // as many columns as the lines hold
    while (end < most && a.columns[2 * end + 1] - a.columns[2 * x] <= kLine) ++end;
    for (int y = a.row; y < a.row_end; ++y) {
      for (int block = 0; block < a.blocks; ++block) {
        find_factors(a.row_weights + static_cast<Index>(y) * a.window_rows * 3,
                     a.weights + block * 9 * kLanes, a.window_rows, factors);
        if (!even) {
          rescale_part(a, y, block, x, end, factors);
        } else if (a.window_columns == 3) {
          even_part<3>(a, y, block, x, end, factors);
        } else {
          even_part<4>(a, y, block, x, end, factors);
        }
      }
    }
    x = end;
  }
}

}  // namespace
}  // namespace espnetv2
