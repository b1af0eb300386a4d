// Memory for many floats, on borders of 64 bytes and, where the system has them, in large pages:
// the weights of a network are read once a run, and small pages would cost a look-up each 4 KiB.
#pragma once
#include <cstddef>
#include <memory>

namespace espnetv2 {

constexpr size_t kCacheLine = 64;

// Zeros at first. Raises std::bad_alloc where there is not so much.
class Floats {
 public:
  explicit Floats(size_t count = 0);

  float* data() { return start_.get(); }
  const float* data() const { return start_.get(); }
  size_t size() const { return count_; }

 private:
  struct Free {
    size_t mapped;  // bytes, if the system gave whole pages
    void operator()(float* start) const;
  };
  size_t count_;
  std::unique_ptr<float, Free> start_;
};

}  // namespace espnetv2
