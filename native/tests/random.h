// Random choices that are the same on every machine.
#pragma once
#include <cstddef>
#include <random>

class Random {
 public:
  explicit Random(unsigned seed) : source_(seed) {}

  size_t below(size_t count) { return count ? source_() % count : 0; }
  bool chance(size_t of) { return below(of) == 0; }

  template <class List>
  const auto& pick(const List& list) {
    return list[below(std::size(list))];
  }

 private:
  std::mt19937 source_;
};
