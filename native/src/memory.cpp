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

#if defined(__linux__)

// Fresh pages are zeros already and cost nothing before they are touched.
float* map(size_t bytes) {
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  madvise(start, bytes, MADV_HUGEPAGE);  // a wish, not a need
  return static_cast<float*>(start);
}

#endif

}  // namespace

Floats::Floats(size_t count) : count_(count), start_(nullptr, Free{0}) {
  const size_t bytes = count * sizeof(float);
#if defined(__linux__)
  if (bytes >= kLargePage / 2) {
    const size_t room = rounded_up(bytes, kLargePage);
    start_ = {map(room), Free{room}};
    return;
  }
#endif
  const size_t room = rounded_up(bytes ? bytes : 1, kCacheLine);
  start_.reset(static_cast<float*>(std::aligned_alloc(kCacheLine, room)));
  if (!start_) throw std::bad_alloc();
  std::memset(start_.get(), 0, room);
}

void Floats::Free::operator()(float* start) const {
#if defined(__linux__)
  if (mapped) {
    munmap(start, mapped);
    return;
  }
#endif
  std::free(start);
}

}  // namespace espnetv2
