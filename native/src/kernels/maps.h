// Kernels that move or combine whole maps: resizing, pooling, gating, gathering.
#pragma once
#include <cmath>

#include "kernels/vector.h"

namespace espnetv2 {
namespace {

// Rows first: each pixel of the input is weighed once for all that lie between it and the next.
constexpr int kSpan = 64;  // input pixels at a time

template <bool kSlopes>
INLINE void resize_part(const ResizeArgs& a, int y, int c, int x, int end) {
  alignas(4 * kLanes) float line[kSpan * kLanes];
  const float down = a.row_weights[y];
  const int32_t first = a.columns[2 * x], last = a.columns[2 * end - 1];
  const Value* above = map(a.x) + a.rows[2 * y] * a.x_row + c * a.x_block + first;
  const Value* below = map(a.x) + a.rows[2 * y + 1] * a.x_row + c * a.x_block + first;
  for (int32_t p = 0; p <= last - first; p += kLanes) {
    store(line + p, load(above + p) * (1.0f - down) + load(below + p) * down);
  }
  const Vector rise = kSlopes ? load(a.rise + c * kLanes) : zero();
  const Vector fall = kSlopes ? load(a.fall + c * kLanes) : zero();
  const Index out = y * a.out_row + c * a.out_block;
  for (; x < end; ++x) {
    const float right = a.column_weights[x];
    const Vector value = load(line + a.columns[2 * x] - first) * (1.0f - right) +
                         load(line + a.columns[2 * x + 1] - first) * right;
    put(a.out, a.out_wide, out + x * kLanes, kSlopes ? slopes(value, rise, fall) : value);
  }
}

void resize(const ResizeArgs& args) {
  const ResizeArgs a = args;  // a copy, which no store can change
  for (int x = 0; x < a.width;) {
    int end = x + 1;  // as many columns as the span holds
    const auto fits = [&](int column) {
      return a.columns[2 * column + 1] - a.columns[2 * x] < kSpan * kLanes;
    };
    while (end < a.width && fits(end)) ++end;
    for (int y = a.row; y < a.row_end; ++y) {
      for (int c = 0; c < a.blocks; ++c) {
        if (a.rise) {
          resize_part<true>(a, y, c, x, end);
        } else {
          resize_part<false>(a, y, c, x, end);
        }
      }
    }
    x = end;
  }
}

INLINE void shrink_row(const float* middle, Index x_row, float* out, int width) {
  const float *above = middle - x_row, *below = middle + x_row;
  const auto columns = [&](int x) {
    return load_unaligned(above + x) + load_unaligned(middle + x) + load_unaligned(below + x);
  };
  static constexpr Lanes before([](int l) { return kLanes - 1 + l; });
  Vector last = all(above[-1] + middle[-1] + below[-1]);
  int x = 0;
  for (; x + kLanes <= width; x += kLanes) {
    const Vector first = columns(2 * x), second = columns(2 * x + kLanes);
    const Vector middles = every_other<0>(first, second), rights = every_other<1>(first, second);
    const Vector lefts = shuffle(last, rights, load_integers(before.lane));
    const Vector mean = (lefts + middles + rights) * (1.0f / 9.0f);
    memcpy(out + x, &mean, sizeof mean);
    last = rights;
  }
  for (; x < width; ++x) {
    float sum = 0;
    for (int c = 2 * x - 1; c <= 2 * x + 1; ++c) sum += above[c] + middle[c] + below[c];
    out[x] = sum * (1.0f / 9.0f);
  }
}

// The same of a row whose odd pixels lie apart. What is written behind the row's end is in its
// room.
INLINE void shrink_parted(const float* even, Index odd, Index x_row, float* out, int width) {
  const auto column = [&](const float* x) {
    return load_unaligned(x - x_row) + load_unaligned(x) + load_unaligned(x + x_row);
  };
  for (int x = 0; x < width; x += kLanes) {
    const float* at = even + x;
    store(out + x, (column(at + odd - 1) + column(at) + column(at + odd)) * (1.0f / 9.0f));
  }
}

// Of planes, which are floats.
void shrink(const ShrinkArgs& a) {
  for (int c = 0; c < a.blocks; ++c) {
    for (int y = a.row; y < a.row_end; ++y) {
      const float* x = static_cast<const float*>(a.x) + 2 * y * a.x_row + c * a.x_block;
      float* out = static_cast<float*>(a.out) + y * a.out_row + c * a.out_block;
      if (a.x_odd) {
        shrink_parted(x, a.x_odd, a.x_row, out, a.width);
      } else {
        shrink_row(x, a.x_row, out, a.width);
      }
    }
  }
}

void part(const float* from, float* even, float* odd, int count) {
  for (; count >= 2 * kLanes; count -= 2 * kLanes, from += 2 * kLanes) {
    const Vector a = load_unaligned(from), b = load_unaligned(from + kLanes);
    store(even, every_other<0>(a, b));
    store(odd, every_other<1>(a, b));
    even += kLanes;
    odd += kLanes;
  }
  for (int i = 0; i < count; ++i) *(i % 2 ? odd : even)++ = from[i];
}

// Sums go row by row, since one over a whole map would lose the last digits of its terms.
template <bool kLargest>
INLINE Vector window_of(const Value* from, Index x_row, int rows, int columns) {
  const auto join = [](Vector found, Vector value) {
    return kLargest ? (value > found ? value : found) : found + value;
  };
  const auto line = [&](const Value* at) {
    Vector found = load(at);
    for (int j = 1; j < columns; ++j) found = join(found, load(at + j * kLanes));
    return found;
  };
  Vector found = line(from);
  for (int i = 1; i < rows; ++i) found = join(found, line(from + i * x_row));
  return kLargest ? found : found * (1.0f / static_cast<float>(rows * columns));
}

void window(const WindowArgs& a) {
  for (int c = a.block; c < a.block_end; ++c) {
    const Vector rise = a.rise ? load(a.rise + c * kLanes) : all(1.0f);
    const Vector fall = a.rise ? load(a.fall + c * kLanes) : all(1.0f);
    for (int y = a.row; y < a.row_end; ++y) {
      const int top = a.rows[2 * y], rows = a.rows[2 * y + 1] - top;
      const Value* from = map(a.x) + c * a.x_block + top * a.x_row;
      const Index out = y * a.out_row + c * a.out_block;
      for (int x = 0; x < a.width; ++x) {
        const int left = a.columns[2 * x], columns = a.columns[2 * x + 1] - left;
        const Value* corner = from + left * kLanes;
        Vector found;
        if (a.largest) {
          found = window_of<true>(corner, a.x_row, rows, columns);
        } else if (rows == 2 && columns == 2) {
          found = window_of<false>(corner, a.x_row, 2, 2);
        } else {
          found = window_of<false>(corner, a.x_row, rows, columns);
        }
        put(a.out, a.out_wide, out + x * kLanes, slopes(found, rise, fall));
      }
    }
  }
}

template <bool kLogistic>  // a call in the loop would push all registers to memory
INLINE void combine_as(const CombineArgs a) {
  for (int y = a.row; y < a.row_end; ++y) {
    for (int c = 0; c < a.blocks; ++c) {
      const Value* from = map(a.x) + y * a.x_row + c * a.x_block;
      const Value* other = a.other ? map(a.other) + y * a.other_row + c * a.other_block : nullptr;
      const Index out = y * a.out_row + c * a.out_block;
      const Vector gate = a.gate ? load(map(a.gate) + c * a.gate_block) : all(1.0f);
      const Vector scale = a.scale ? load(a.scale + c * kLanes) : all(1.0f);
      const Vector shift = a.scale ? load(a.shift + c * kLanes) : zero();
      const Vector rise = a.rise ? load(a.rise + c * kLanes) : all(1.0f);
      const Vector fall = a.rise ? load(a.fall + c * kLanes) : all(1.0f);
      for (int x = 0; x < a.width; ++x) {
        Vector value = load(from + x * kLanes) * gate;
        if (other) value += load(other + x * kLanes);
        value = slopes(value * scale + shift, rise, fall);
        if (kLogistic) {
          for (int l = 0; l < kLanes; ++l) value[l] = 1.0f / (1.0f + expf(-value[l]));
        }
        put(a.out, a.out_wide, out + x * kLanes, value);
      }
    }
  }
}

void combine(const CombineArgs& a) { a.logistic ? combine_as<true>(a) : combine_as<false>(a); }

// Lanes of up to four input blocks at once; those that are not taken are added as zeros.
template <int kSources, class Output>
INLINE void gather_row(const Value* x, const int32_t* sources, const int32_t* picks, Output* out,
                       int width, bool more) {
  Integers pick[kSources];
  const Value* from[kSources];
  UNROLL for (int i = 0; i < kSources; ++i) {
    pick[i] = load_integers(picks + i * kLanes);
    from[i] = x + sources[i];
  }
  for (int p = 0; p < width * kLanes; p += kLanes) {
    Vector found = more ? load(out + p) : zero();
    UNROLL for (int i = 0; i < kSources; ++i) {
      const Vector all_of_them = shuffle(load(from[i] + p), pick[i]);
      found = pick[i] >= 0 ? all_of_them : found;
    }
    store(out + p, found);
  }
}

template <class Output>
INLINE void gather_to(const GatherArgs& a) {
  for (int y = a.row; y < a.row_end; ++y) {
    const Value* x = map(a.x) + y * a.x_row;
    const int32_t *sources = a.sources, *picks = a.picks;
    for (int c = 0; c < a.blocks; ++c) {
      Output* out = static_cast<Output*>(a.out) + y * a.out_row + c * a.out_block;
      for (int left = a.counts[c], part = 0; left > 0; ++part) {
        const int now = left < 4 ? left : 4;
        if (now == 4) gather_row<4>(x, sources, picks, out, a.width, part);
        if (now == 3) gather_row<3>(x, sources, picks, out, a.width, part);
        if (now == 2) gather_row<2>(x, sources, picks, out, a.width, part);
        if (now == 1) gather_row<1>(x, sources, picks, out, a.width, part);
        left -= now;
        sources += now;
        picks += now * kLanes;
      }
    }
  }
}

void gather(const GatherArgs& a) { a.out_wide ? gather_to<float>(a) : gather_to<Value>(a); }

// e^x = 2^n e^r, where r is at most half of log 2.
INLINE Vector exponential(Vector x) {
  const Vector whole = all(12582912.0f), least = all(-87.0f);  // adding 1.5 * 2^23 rounds
  x = x < least ? least : x;
  const Vector shifted = x * 1.44269504f + whole, n = shifted - whole;
  const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vector series = all(1.9875691500e-4f);
  for (const float term :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
    series = series * r + term;
  }
  const Integers power = ((Integers)shifted - (Integers)whole + 127) << 23;
  return (series * r * r + r + 1.0f) * (Vector)power;
}

void exponentials(float* values, int count, float largest) {
  if (count < kLanes) {
    float some[kLanes] = {};
    memcpy(some, values, sizeof(float) * static_cast<size_t>(count));
    const Vector found = exponential(load_unaligned(some) - largest);
    memcpy(values, &found, sizeof(float) * static_cast<size_t>(count));
    return;
  }
  // the last vector overlaps the one before
  float* end = values + count - kLanes;
  const Vector last = exponential(load_unaligned(end) - largest);
  for (; values < end; values += kLanes) {
    const Vector found = exponential(load_unaligned(values) - largest);
    memcpy(values, &found, sizeof found);
  }
  memcpy(end, &last, sizeof last);
}

}  // namespace
}  // namespace espnetv2
