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

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace espnetv2 {
namespace {

// Where pairs of bfloat16 are multiplied at once.
#if defined(HALF) && (defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC))
#define PAIRS
#endif

// Where halves are not bfloat16 but IEEE's, which the processor computes in.
#if defined(HALF) && defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) && !defined(PAIRS)
#define FP16
#endif

constexpr int kLanes = LANES;
constexpr int kTilePixels = TILE_PIXELS;  // widest tile whose accumulators stay in registers

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));

typedef uint32_t Bits __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2 * LANES), may_alias));

// What a map holds.
#if defined(HALF)
typedef uint16_t Value;
#else
typedef float Value;
#endif

#define UNROLL _Pragma("GCC unroll 64")
#define INLINE inline __attribute__((always_inline))

INLINE Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
INLINE void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
#if defined(FP16)
INLINE Vector load(const uint16_t* p) {
  return (Vector)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
INLINE Halves halves_of(Vector v) {
  const Vector least = Vector{} - kMostFp16, most = Vector{} + kMostFp16;
  const float32x4_t within =
      vminq_f32(vmaxq_f32((float32x4_t)v, (float32x4_t)least), (float32x4_t)most);
  return (Halves)vcvt_f16_f32(within);
}
INLINE float number(uint16_t value) { return float_of_fp16(value); }
INLINE void set(uint16_t* p, float value) { *p = fp16_of(value); }
#else
INLINE Vector load(const uint16_t* p) {
  const Halves halves = *reinterpret_cast<const Halves*>(p);
#if defined(__AVX512BF16__) && LANES == 16
  const Bits bits = (Bits)_mm512_cvtepu16_epi32((__m256i)halves);  // compilers make five of it
#else
  const Bits bits = __builtin_convertvector(halves, Bits);
#endif
  return (Vector)(bits << 16);
}
// Rounds to nearest, ties to even.
INLINE Halves halves_of(Vector v) {
#if defined(__AVX512BF16__) && LANES == 16
  return (Halves)_mm512_cvtneps_pbh(v);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) && LANES == 4
  return (Halves)vcvt_bf16_f32((float32x4_t)v);
#else
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return __builtin_convertvector(v == v ? rounded : Bits{} + 0x7fc0, Halves);
#endif
}
INLINE float number(uint16_t value) { return float_of(value); }
INLINE void set(uint16_t* p, float value) { *p = half_of(value); }
#endif
INLINE void store(uint16_t* p, Vector v) { *reinterpret_cast<Halves*>(p) = halves_of(v); }
#if defined(__AVX512F__) && LANES == 16
// Rounded to bytes; what is no number becomes the least one.
INLINE void store(uint8_t* p, Vector v) {
  const __m512i rounded = _mm512_cvtps_epi32(_mm512_max_ps((__m512)v, _mm512_setzero_ps()));
  _mm_store_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(rounded));
}
#elif defined(__ARM_FEATURE_DOTPROD) && LANES == 4
// The same, less 128, since both factors of a product have signs.
INLINE void store(uint8_t* p, Vector v) {
  const int32x4_t rounded = vcvtnq_s32_f32(vmaxnmq_f32((float32x4_t)v, vdupq_n_f32(0.0f)));
  const uint16x4_t narrow = vqmovun_s32(rounded);
  const uint8x8_t bytes = vqmovn_u16(vcombine_u16(narrow, narrow));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0) ^ 0x80808080;
  memcpy(p, &four, sizeof four);
}
#endif
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
INLINE void set(float* p, float value) { *p = value; }
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
    memcpy(p, &v, sizeof(float) * static_cast<size_t>(count));
  }
}
// Lane l of the result is lane pick[l] of `a` and, behind it, `b`.
INLINE Vector shuffle(Vector a, Vector b, Integers pick) {
#if defined(__clang__)
  Vector found{};
  for (int l = 0; l < kLanes; ++l) found[l] = pick[l] < kLanes ? a[pick[l]] : b[pick[l] - kLanes];
  return found;
#else
  return __builtin_shuffle(a, b, pick);
#endif
}
// Lane numbers that are constants; compilers do not see through vectors that are set lane by lane.
struct Lanes {
  alignas(4 * kLanes) int32_t lane[kLanes] = {};
  template <class Rule>
  constexpr explicit Lanes(Rule rule) {
    for (int l = 0; l < kLanes; ++l) lane[l] = rule(l);
  }
};
// Every other lane of two vectors side by side, from the first or from the second one on.
template <int kFirst>
INLINE Vector every_other(Vector a, Vector b) {
  static constexpr Lanes from([](int l) { return 2 * l + kFirst; });
  return shuffle(a, b, load_integers(from.lane));
}
// Rows become columns, of which the last steps from `kStep` on are left to do.
template <int kStep = 1>
INLINE void transpose(Vector (&v)[kLanes]) {
  if constexpr (kStep < kLanes) {
    static constexpr Lanes upper([](int l) { return l & kStep ? kLanes + l - kStep : l; });
    static constexpr Lanes lower([](int l) { return l & kStep ? kLanes + l : l + kStep; });
    UNROLL for (int i = 0; i < kLanes; ++i) {
      if (i & kStep) continue;
      const Vector a = v[i], b = v[i + kStep];
      v[i] = shuffle(a, b, load_integers(upper.lane));
      v[i + kStep] = shuffle(a, b, load_integers(lower.lane));
    }
    transpose<2 * kStep>(v);
  }
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
// Compilers load a value again for each of its uses, if they may.
INLINE Vector in_register(Vector v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}
INLINE Vector zero() { return Vector{}; }
INLINE Vector all(float value) { return value - Vector{}; }  // adding would lose -0

// PReLU with a slope of its own on either side. Slopes of any sign and size occur in trained
// networks, so "the larger of x and a x" would be wrong.
INLINE Vector slopes(Vector x, Vector rise, Vector fall) { return x * (x > zero() ? rise : fall); }

// Parts of `width` that are as equal as possible and at most `most` wide.
struct Parts {
  int size, wider;  // the first `wider` ones have size + 1
  INLINE Parts(int width, int most) {
    const int count = (width + most - 1) / most;
    size = count ? width / count : 0;
    wider = count ? width % count : 0;
  }
};

}  // namespace
}  // namespace espnetv2
