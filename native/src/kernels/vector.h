// The vector type that all kernels are written in, of as many lanes as the instruction set has.
// Include with LANES and TILE_PIXELS defined, and HALF where maps are bfloat16; everything here and
// in the other kernel headers is of internal linkage, since it is compiled once for each
// instruction set.
#pragma once
#include <string.h>

#include <cstddef>
#include <cstdint>

#include "half.h"
#include "kernels/arguments.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace espnetv2 {
namespace {

constexpr int kLanes = LANES;
constexpr int kTilePixels = TILE_PIXELS;  // widest tile whose accumulators stay in registers

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));

typedef uint32_t Bits __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2 * LANES), may_alias));

// What a map holds. A bfloat16 is the upper half of a float.
#if defined(HALF)
typedef uint16_t Value;
#else
typedef float Value;
#endif

#define UNROLL _Pragma("GCC unroll 32")
#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
INLINE void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
INLINE Vector load(const uint16_t* p) {
  const Halves halves = *reinterpret_cast<const Halves*>(p);
  return (Vector)(__builtin_convertvector(halves, Bits) << 16);
}
// Rounds to nearest, ties to even.
INLINE Halves halves_of(Vector v) {
#if defined(__AVX512BF16__) && LANES == 16
  return (Halves)_mm512_cvtneps_pbh(v);
#else
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : Bits{} + 0x7fc0, Halves);
#endif
}
INLINE void store(uint16_t* p, Vector v) { *reinterpret_cast<Halves*>(p) = halves_of(v); }
// Into a map of floats where `wide`, else into one of values.
INLINE void put(void* out, bool wide, Index place, Vector v) {
  if (wide) return store(static_cast<float*>(out) + place, v);
  store(static_cast<Value*>(out) + place, v);
}
INLINE Index bytes_of(bool wide, Index places) {
  return places * static_cast<Index>(wide ? sizeof(float) : sizeof(Value));
}
INLINE void* moved(void* p, bool wide, Index places) {
  return static_cast<char*>(p) + bytes_of(wide, places);
}
INLINE const void* moved(const void* p, bool wide, Index places) {
  return static_cast<const char*>(p) + bytes_of(wide, places);
}
INLINE float number(float value) { return value; }
INLINE float number(uint16_t value) { return float_of(value); }
INLINE void set(float* p, float value) { *p = value; }
INLINE void set(uint16_t* p, float value) { *p = half_of(value); }
INLINE const Value* map(const void* p) { return static_cast<const Value*>(p); }
INLINE Value* map(void* p) { return static_cast<Value*>(p); }
INLINE Vector load_unaligned(const float* p) {
  Vector v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE Integers load_integers(const int32_t* p) {
  Integers v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store_some(float* p, Vector v, int count) {
  if (count == kLanes) {
    memcpy(p, &v, sizeof v);
  } else {
    for (int l = 0; l < count; ++l) p[l] = v[l];
  }
}
// Every other lane of two vectors side by side, from the first or from the second one on.
template <int kFirst>
INLINE Vector every_other(Vector a, Vector b) {
#if defined(__clang__)
  Vector found{};
  for (int l = 0; l < kLanes; ++l) {
    const int from = 2 * l + kFirst;
    found[l] = from < kLanes ? a[from] : b[from - kLanes];
  }
  return found;
#else
  Integers from;
  UNROLL for (int l = 0; l < kLanes; ++l) from[l] = 2 * l + kFirst;
  return __builtin_shuffle(a, b, from);
#endif
}
// Lane l of the result is lane pick[l] of `v`, counted modulo the lanes.
INLINE Vector shuffle(Vector v, Integers pick) {
#if defined(__clang__)
  Vector found{};
  for (int l = 0; l < kLanes; ++l) found[l] = v[pick[l] & (kLanes - 1)];
  return found;
#else
  return __builtin_shuffle(v, pick);
#endif
}
INLINE Vector zero() { return Vector{}; }
INLINE Vector all(float value) { return Vector{} + value; }

// PReLU with a slope of its own on either side. Slopes of any sign and size occur in trained
// networks, so "the larger of x and a x" would be wrong.
INLINE Vector slopes(Vector x, Vector rise, Vector fall) { return x * (x > zero() ? rise : fall); }

// Parts of `width` that are as equal as possible and at most `most` wide.
struct Parts {
  int size, wider;  // the first `wider` ones have size + 1
  INLINE Parts(int width, int most) {
    const int count = (width + most - 1) / most;
    size = width / count;
    wider = width % count;
  }
};

}  // namespace
}  // namespace espnetv2
