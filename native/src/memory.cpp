#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace espnetv2 {

namespace {

constexpr size_t kLargePage = size_t{2} << 20;

size_t rounded_up(size_t bytes, size_t border) { return (bytes + border - 1) / border * border; }

}  // namespace

Floats::Floats(size_t count) : count_(count) {
  const size_t bytes = count * sizeof(float);
  const size_t border = bytes >= kLargePage / 2 ? kLargePage : kCacheLine;
  const size_t room = rounded_up(bytes ? bytes : 1, border);
  start_.reset(static_cast<float*>(std::aligned_alloc(border, room)));
  if (!start_) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (border == kLargePage) madvise(start_.get(), room, MADV_HUGEPAGE);  // a wish, not a need
#endif
  std::memset(start_.get(), 0, room);
}

void Floats::Free::operator()(float* start) const { std::free(start); }

}  // namespace espnetv2
