#include "bands.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>

#include "denormals.h"
#include "geometry.h"
#include "groups.h"
#include "outputs.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

// Rows and parts of one call.
struct Share {
  int row, row_end, part, part_end;
};

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
        if (first < end) step(operation, {0, maps_.plan.heights[at(operation.out)], first, end});
        continue;
      }
      const int first = group.rows * thread / threads;
      const int end = group.rows * (thread + 1) / threads;
      std::fill(known_.begin(), known_.begin() + group.locals.size(), Range{});
      for (int row = first; row < end; row += group.band) {
        find_ranges(group, row, std::min(row + group.band, end), made_.data(), maps_.kept.data());
        for (size_t i = 0; i < group.locals.size(); ++i) slide(group.locals[i], i);
        for (size_t i = 0; i < group.operations.size(); ++i) {
          const Operation& operation = group.operations[i];
          if (operation.local >= 0) {
            made_[i].first = std::max(made_[i].first, known_[at(operation.local)].end);
          }
          if (made_[i].count() > 0) one(operation, made_[i].first, made_[i].end);
        }
        std::copy_n(maps_.kept.begin(), group.locals.size(), known_.begin());
      }
    }
  }

 private:
  static size_t at(Name name) { return Maps::at(name); }
  const Storage& storage(Name name) const { return maps_.storage(name); }
  View view(Name name) const { return maps_.view(name); }
  int blocks(Name name) const { return maps_.blocks(name); }
  Index lanes() const { return maps_.network.lanes; }

  // Rows that the last band made and this one needs move to where this one's begin; those that lie
  // above or below the map become zeros.
  void slide(Name name, size_t local) {
    const Storage& s = storage(name);
    const Range now = maps_.kept[local], before = known_[local];
    const Index row = s.row * s.value;
    char* start = maps_.start(s);
    const int shared = std::min(before.end, now.end) - now.first;
    if (before.count() > 0 && now.first > before.first && shared > 0) {
      std::memmove(start, start + (now.first - before.first) * row,
                   static_cast<size_t>(shared * row));
    }
    for (int y = now.first; y < now.end; ++y) {
      const bool outside = y < 0 || y >= s.height;
      if (outside && (before.count() <= 0 || y >= before.end)) fill(start + (y - now.first) * row, row);
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
        int parts = blocks(operation.out) / branches;
        if (operation.step->kind == Kind::conv) {
          parts = static_cast<int>(operation.packed->at(0).tiles.size());
        }
        step(operation, {row, end, 0, parts});
      }
    }
  }

  void step(const Operation& operation, const Share& share) {
    switch (operation.step->kind) {
      case Kind::conv:
        conv(operation, share);
        break;
      case Kind::pyramid:
        pyramid(operation, share);
        break;
      case Kind::shrink:
        shrink(operation, share);
        break;
      case Kind::maximum:
      case Kind::mean:
      case Kind::adapt:
        window(operation, share);
        break;
      case Kind::resize:
        resize(operation, share);
        break;
      case Kind::combine:
      case Kind::logistic:
        combine(operation, share);
        break;
      case Kind::gather:
        gather(operation, share);
        break;
      case Kind::enlarge:
        enlarge(operation, share);
        return;
      default:
        return;
    }
    clear_border(operation, share);
  }

  const float* floats(Index place) const { return maps_.network.weights.at(place); }

  void conv(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    const Packed& packed = operation.packed->at(0);
    const View in = view(operation.in), out = view(operation.out);
    const Storage& from = storage(operation.in);
    const Storage& to = storage(operation.out);
    ConvArgs a{};
    a.x = in.at;
    a.x_row = in.row * step.stride;
    a.x_step = static_cast<Index>(from.lanes) * step.stride;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.out_step = lanes();
    a.wide = out.value == sizeof(float);
    if (step.residual != kNone) {
      const View residual = view(step.residual);
      a.residual = residual.at;
      a.residual_row = residual.row;
      a.residual_block = residual.block;
    }
    a.tiles = packed.tiles.data();
    a.offsets = operation.offsets.data();
    a.weights = floats(packed.weights);
    a.bias = floats(packed.bias);
    a.rise = floats(packed.rise);
    a.fall = floats(packed.fall);
    a.width = to.width;
    a.row = share.row;
    a.row_end = share.row_end;
    if (operation.merged) {
      a.width = to.width * to.height;
      a.row = 0;
      a.row_end = 1;
      a.places = operation.places.empty() ? nullptr : operation.places.data();
    }
    a.tile = share.part;
    a.tile_end = share.part_end;
    multiply(packed, a);
  }

  void multiply(const Packed& packed, const ConvArgs& a) const {
    (packed.blocks ? maps_.kernels.conv_blocks : maps_.kernels.conv)(a);
  }

  void pyramid(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    const Packed& packed = operation.packed->at(0);
    const View in = view(operation.in), out = view(operation.out);
    PyramidArgs a{};
    a.x = in.at;
    a.x_row = in.row * step.stride;
    a.x_step = lanes() * step.stride;
    a.x_block = in.block;
    a.wide = in.value == sizeof(float);
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.branches = static_cast<int>(step.branches.size());
    a.taps = packed.taps.data();
    a.offsets = operation.offsets.data();
    a.weights = floats(packed.weights);
    a.bias = floats(packed.bias);
    a.scale = floats(packed.scale);
    a.shift = floats(packed.shift);
    a.rise = floats(packed.rise);
    a.fall = floats(packed.fall);
    a.running = step.running;
    a.blocks = blocks(operation.out) / a.branches;
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    a.block = share.part;
    a.block_end = share.part_end;
    maps_.kernels.pyramid(a);
  }

  void shrink(const Operation& operation, const Share& share) {
    const View in = view(operation.in), out = view(operation.out);
    ShrinkArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.planes = blocks(operation.out);
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    maps_.kernels.shrink(a);
  }

  void window(const Operation& operation, const Share& share) {
    const View in = view(operation.in), out = view(operation.out);
    WindowArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.rows = operation.rows_at.data();
    a.columns = operation.columns_at.data();
    a.largest = operation.step->kind == Kind::maximum;
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    a.block = share.part;
    a.block_end = share.part_end;
    a.rise = floats(operation.packed->at(0).rise);
    a.fall = floats(operation.packed->at(0).fall);
    maps_.kernels.window(a);
  }

  void resize(const Operation& operation, const Share& share) {
    const View in = view(operation.in), out = view(operation.out);
    ResizeArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.rows = operation.rows_at.data();
    a.row_weights = operation.row_weights.data();
    a.columns = operation.columns_at.data();
    a.column_weights = operation.column_weights.data();
    a.rise = floats(operation.packed->at(0).rise);
    a.fall = floats(operation.packed->at(0).fall);
    a.blocks = blocks(operation.out);
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    maps_.kernels.resize(a);
  }

  void combine(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    const Packed& packed = operation.packed->at(0);
    const View in = view(operation.in), out = view(operation.out);
    CombineArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    if (step.gate != kNone) {
      const View gate = view(step.gate);
      a.gate = gate.at;
      a.gate_block = gate.block;
    }
    if (step.other != kNone) {
      const View other = view(step.other);
      a.other = other.at;
      a.other_row = other.row;
      a.other_block = other.block;
    }
    a.scale = floats(packed.scale);
    a.shift = floats(packed.shift);
    a.rise = floats(packed.rise);
    a.fall = floats(packed.fall);
    a.logistic = step.kind == Kind::logistic;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.blocks = blocks(operation.out);
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    maps_.kernels.combine(a);
  }

  void gather(const Operation& operation, const Share& share) {
    const View in = view(operation.in), out = view(operation.out);
    GatherArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.counts = operation.counts.data();
    a.sources = operation.offsets.data();
    a.picks = operation.places.data();
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.blocks = blocks(operation.out);
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    maps_.kernels.gather(a);
  }

  // Each input pixel makes four; a corner at a time, on every other pixel of every other row.
  void enlarge(const Operation& operation, const Share& share) {
    const View in = view(operation.in), out = view(operation.out);
    const Storage& to = storage(operation.out);
    size_t entry = 0;
    for (int corner = 0; corner < 4; ++corner) {
      const Packed& packed = operation.packed->at(static_cast<size_t>(corner));
      const int down = corner / 2, right = corner % 2;
      ConvArgs a{};
      a.x = in.at;
      a.x_row = in.row;
      a.x_step = lanes();
      a.out = out.move(down * out.row + right * lanes());
      a.out_row = 2 * out.row;
      a.out_block = out.block;
      a.out_step = 2 * lanes();
      a.tiles = packed.tiles.data();
      a.offsets = operation.offsets.data() + entry;
      a.weights = floats(packed.weights);
      a.bias = floats(packed.bias);
      a.rise = floats(packed.rise);
      a.fall = floats(packed.fall);
      a.width = (to.width - right + 1) / 2;
      a.row = share.row;
      a.row_end = std::min(share.row_end, (to.height - down + 1) / 2);
      a.tile_end = static_cast<int>(packed.tiles.size());
      if (a.width > 0) multiply(packed, a);  // a map of one column has no right corners
      entry += packed.reach.size();
    }
    clear_border(operation, {2 * share.row, std::min(2 * share.row_end, to.height), 0, 1});
  }

  // ---- borders: zeros beside the rows that were made, above the first and below the last ------

  void clear_border(const Operation& operation, const Share& share) {
    const Storage& s = storage(operation.out);
    if (s.border == 0) return;
    const View out = view(operation.out);
    int first = 0, end = blocks(operation.out);
    if (operation.split == Operation::Split::parts) {
      if (operation.step->kind == Kind::conv) {
        const auto& tiles = operation.packed->at(0).tiles;
        const Tile& last = tiles[at(share.part_end - 1)];
        first = tiles[at(share.part)].block;
        end = last.block + last.blocks;
      } else {
        first = share.part;
        end = share.part_end;
      }
    }
    const Index side = static_cast<Index>(s.border) * s.lanes;
    for (int block = first; block < end; ++block) {
      const auto from = [&](int y) { return out.move(block * out.block - side + y * out.row); };
      const Index whole = s.block;
      if (share.row == 0 && !s.local) {
        for (int y = -s.border; y < 0; ++y) fill(from(y), whole * s.value);
      }
      for (int y = share.row; y < share.row_end; ++y) {
        fill(from(y), side * s.value);
        fill(from(y) + (whole - side) * s.value, side * s.value);
      }
      if (share.row_end == s.height && !s.local) {
        for (int y = s.height; y < s.height + s.border; ++y) fill(from(y), whole * s.value);
      }
    }
  }

  static void fill(char* start, Index bytes) { std::memset(start, 0, static_cast<size_t>(bytes)); }

  void import(int row, int end) {
    const Storage& s = storage(kImage);
    const View image = view(kImage);
    const auto plane = static_cast<Index>(s.height) * s.width;
    for (int c = 0; c < s.blocks; ++c) {
      const Index before = (static_cast<Index>(maps_.image) * s.blocks + c) * plane;
      const float* from = maps_.memory.image + before;
      for (int y = row; y < end; ++y) {
        char* to = image.move(y * image.row + c * image.block);
        maps_.kernels.take(from + static_cast<Index>(y) * s.width, to, s.width);
        fill(to - s.border * s.value, s.border * s.value);
        fill(to + s.width * s.value, s.border * s.value);
      }
    }
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
    threads.meet();
    if (milliseconds && thread == 0) {
      milliseconds[i] = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }
  }
}

}  // namespace espnetv2
