// The table of one instruction set's kernels. Include last, with TABLE and NAME defined.
#pragma once
#include <ctime>

#include "kernels/blocks.h"
#include "kernels/maps.h"
#include "kernels/planar.h"
#include "kernels/planes.h"
#include "kernels/pyramid.h"
#include "kernels/rescale.h"
#include "kernels/tile.h"
#if defined(AMX)
#include "kernels/bytes.h"
#endif

namespace espnetv2 {
namespace {

// How many multiply-adds a second the processor does when nothing but registers is used.
double peak(double seconds) {
  constexpr int kSums = kTilePixels * 2 < 12 ? kTilePixels * 2 : 12;
  constexpr long kRounds = 20000;
  Vector sum[kSums], weight = all(1.0f), value = all(1e-9f);
  UNROLL for (int i = 0; i < kSums; ++i) sum[i] = all(static_cast<float>(i));
  asm volatile("" : "+m"(weight), "+m"(value));
  const Vector w = weight, v = value;
  double best = 0, spent = 0;
  while (spent < seconds) {
    timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
#pragma GCC unroll 1
    for (long round = 0; round < kRounds; ++round) {
      UNROLL for (int i = 0; i < kSums; ++i) sum[i] = sum[i] * v + w;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double own = (end.tv_sec - start.tv_sec) + 1e-9 * (end.tv_nsec - start.tv_nsec);
    const double rate = 1.0 * kRounds * kSums * kLanes / own;
    best = rate > best ? rate : best;
    spent += own;
  }
  Vector total = zero();
  UNROLL for (int i = 0; i < kSums; ++i) total += sum[i];
  asm volatile("" ::"m"(total));
  return best;
}

#if defined(HALF)
uint16_t half(float value) {
  uint16_t found = 0;
  set(&found, value);
  return found;
}
float number_of(uint16_t value) { return number(value); }
#else
constexpr HalfOfNumber half = nullptr;
constexpr NumberOfHalf number_of = nullptr;
#endif

#if defined(AMX)
constexpr auto kConvBytes = conv_bytes;
#else
constexpr void (*kConvBytes)(const ConvArgs&) = nullptr;
constexpr Index kGranule = 0;
#endif

#if defined(AMX)
constexpr bool kReadsAlso = false;
#else
constexpr bool kReadsAlso = true;
#endif

const Kernels kTable = {
    NAME,         kLanes,   sizeof(Value), conv,           kConvBlocks, kReadsAlso,
    kConvBytes,   pyramid,  conv_planar,   pyramid_planar, part,        resize,
    rescale,      shrink,   window,        combine,        gather,      planes,
    exponentials, peak,     kGranule,      kTogether,      kEach,       0,
    half,         number_of};

}  // namespace

const Kernels* TABLE() { return &kTable; }

}  // namespace espnetv2
