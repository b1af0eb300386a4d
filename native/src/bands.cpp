#include "bands.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "denormals.h"
#include "outputs.h"
#include "ranges.h"
#include "steps.h"

namespace espnetv2 {

namespace {

class Worker {
 public:
  Worker(const Model& model, const Plan& plan, int thread, const Memory& memory)
      : maps_(model, plan, thread, memory), outputs_(maps_) {}

  void run(const Group& group, int threads) {
    const int thread = maps_.thread;
    for (maps_.image = 0; maps_.image < maps_.plan.batch; ++maps_.image) {
      if (group.rows == 0) {
        const Operation& operation = group.operations[0];
        const int first = operation.parts * thread / threads;
        const int end = operation.parts * (thread + 1) / threads;
        const int rows = maps_.plan.heights[at(operation.out)];
        if (first < end) run_step(maps_, operation, {0, rows, first, end});
        continue;
      }
      const int first = group.rows * thread / threads;
      const int end = group.rows * (thread + 1) / threads;
      std::fill(known_.begin(), known_.begin() + group.locals.size(), Range{});
      for (int row = first; row < end; row += group.band) {
        find_ranges(group, row, std::min(row + group.band, end), known_.data(), made_.data(),
                    maps_.kept.data());
        for (size_t i = 0; i < group.locals.size(); ++i) slide(group.locals[i], i);
        for (size_t i = 0; i < group.operations.size(); ++i) {
          if (made_[i].count() > 0) one(group.operations[i], made_[i].first, made_[i].end);
        }
        keep(group, maps_.kept.data(), known_.data());
      }
    }
  }

 private:
  static size_t at(Name name) { return Maps::at(name); }
  const Storage& storage(Name name) const { return maps_.storage(name); }

  // Makes room for the rows of this band: once it is used up, those that the last band made and
  // this one needs move to where it begins. Rows above or below the map become zeros.
  void slide(Name name, size_t local) {
    const Storage& s = storage(name);
    const Range now = maps_.kept[local], before = known_[local];
    if (now.count() <= 0) return;
    const Index row = s.row * s.value;
    char* start = maps_.start(s);
    int& top = maps_.top[local];
    if (before.count() <= 0 || now.end - top > s.rows_room) {
      const int shared = before.count() > 0 ? std::min(before.end, now.end) - now.first : 0;
      if (shared > 0) {
        std::memmove(start, start + (now.first - top) * row, static_cast<size_t>(shared * row));
      }
      top = now.first;
    }
    for (int y = now.first; y < now.end; ++y) {
      const bool outside = y < 0 || y >= s.height;
      if (outside && (before.count() <= 0 || y >= before.end)) clear(start + (y - top) * row, row);
    }
  }

  void one(const Operation& operation, int row, int end) {
    switch (operation.kind) {
      case Operation::Kind::import:
        import(row, end);
        break;
      case Operation::Kind::output:
        outputs_.give(operation, row, end);
        break;
      case Operation::Kind::step: {
        const auto branches =
            static_cast<int>(std::max<size_t>(operation.step->branches.size(), 1));
        int parts = maps_.blocks(operation.out) / branches;
        if (operation.step->kind == Step::Kind::conv) {
          parts = static_cast<int>(operation.packed->at(0).tiles.size());
        }
        run_step(maps_, operation, {row, end, 0, parts});
      }
    }
  }

  void import(int row, int end) {
    const Storage& s = storage(kImage);
    const View image = maps_.view(kImage);
    const auto plane = static_cast<Index>(s.height) * s.width;
    for (int c = 0; c < s.blocks; ++c) {
      const Index before = (static_cast<Index>(maps_.image) * s.blocks + c) * plane;
      const float* from = maps_.memory.image + before;
      for (int y = row; y < end; ++y) {
        char* to = image.move(y * image.row + c * image.block);
        const float* row = from + static_cast<Index>(y) * s.width;
        if (s.odd) {
          auto* even = reinterpret_cast<float*>(to);
          maps_.kernels.part(row, even, even + s.odd, s.width);
          clear_beside(to, (s.width + 1) / 2, (s.border + 1) / 2);
          clear_beside(to + s.odd * s.value, s.width / 2, (s.border + 1) / 2);
        } else {
          std::memcpy(to, row, sizeof(float) * at(s.width));
          clear_beside(to, s.width, s.border);
        }
      }
    }
  }

  static void clear_beside(char* row, Index width, Index border) {
    constexpr Index kValue = sizeof(float);
    clear(row - border * kValue, border * kValue);
    clear(row + width * kValue, border * kValue);
  }

  Maps maps_;
  const Outputs outputs_;
  std::array<Range, 64> made_;   // rows of this band: of operations
  std::array<Range, 64> known_;  // of local storages: what the last band kept
};

}  // namespace

void run_groups(const Model& model, const Plan& plan, Threads& threads, int thread,
                const Memory& memory, double* milliseconds) {
  using Clock = std::chrono::steady_clock;
  const NoDenormals fast;
  Worker worker(model, plan, thread, memory);
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    const auto start = milliseconds ? Clock::now() : Clock::time_point();
    worker.run(plan.groups[i], threads.count());
    threads.meet(thread);
    if (milliseconds && thread == 0) {
      milliseconds[i] = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }
  }
}

}  // namespace espnetv2
