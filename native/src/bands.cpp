#include "bands.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>

#include "denormals.h"
#include "geometry.h"
#include "groups.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

// A map's pixel (row 0, column 0) in its first block, and its distances.
struct View {
  float* at;
  Index row, block;
};

// Rows and parts of one call.
struct Share {
  int row, row_end, part, part_end;
};

class Worker {
 public:
  Worker(const Model& model, const Plan& plan, int thread, const Memory& memory)
      : network_(model.network()),
        kernels_(model.kernels()),
        plan_(plan),
        thread_(thread),
        memory_(memory) {}

  void run(const Group& group, int threads) {
    for (image_ = 0; image_ < plan_.batch; ++image_) {
      if (group.rows == 0) {
        const Operation& operation = group.operations[0];
        const int first = operation.parts * thread_ / threads;
        const int end = operation.parts * (thread_ + 1) / threads;
        if (first < end) step(operation, {0, plan_.heights[at(operation.out)], first, end});
        continue;
      }
      const int first = group.rows * thread_ / threads;
      const int end = group.rows * (thread_ + 1) / threads;
      for (int row = first; row < end; row += group.band) {
        find_ranges(group, row, std::min(row + group.band, end), made_.data(), kept_.data());
        for (size_t i = 0; i < group.operations.size(); ++i) {
          if (made_[i].count() > 0) one(group.operations[i], made_[i].first, made_[i].end);
        }
      }
    }
  }

 private:
  static size_t at(Name name) { return static_cast<size_t>(name); }

  const Storage& storage(Name name) const { return plan_.storages[at(plan_.storage_of[at(name)])]; }

  View view(Name name) const {
    const Storage& s = storage(name);
    const Place& place = network_.places[at(name)];
    float* start = memory_.arena + s.start;
    if (s.local) {
      start += plan_.arena + plan_.band * thread_ - s.row * first_row(s);
    } else {
      start += s.image * image_;
    }
    return {start + place.block * s.block, s.row, s.block};
  }

  // Of a local storage, in this band; it may lie above the map, in its border.
  int first_row(const Storage& s) const { return kept_[at(s.local_place)].first; }

  int blocks(Name name) const { return network_.places[at(name)].blocks; }

  void one(const Operation& operation, int row, int end) {
    switch (operation.kind) {
      case Operation::Kind::import:
        import();
        break;
      case Operation::Kind::output:
        output(operation, row, end);
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

  const float* floats(Index place) const { return network_.weights.at(place); }

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
    a.out_step = network_.lanes;
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
    kernels_.conv(a);
  }

  void pyramid(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    const Packed& packed = operation.packed->at(0);
    const View in = view(operation.in), out = view(operation.out);
    PyramidArgs a{};
    a.x = in.at;
    a.x_row = in.row * step.stride;
    a.x_step = static_cast<Index>(network_.lanes) * step.stride;
    a.x_block = in.block;
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
    kernels_.pyramid(a);
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
    kernels_.shrink(a);
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
    kernels_.window(a);
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
    kernels_.resize(a);
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
    kernels_.combine(a);
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
    kernels_.gather(a);
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
      a.x_step = network_.lanes;
      a.out = out.at + down * out.row + right * network_.lanes;
      a.out_row = 2 * out.row;
      a.out_block = out.block;
      a.out_step = 2 * static_cast<Index>(network_.lanes);
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
      if (a.width > 0) kernels_.conv(a);  // a map of one column has no right corners
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
      float* column = out.at + block * out.block - side;
      const Index whole = s.block;
      const Range rows = s.local ? kept_[at(s.local_place)] : Range{-s.border, s.height + s.border};
      if (share.row == 0) {
        for (int y = rows.first; y < 0; ++y) fill(column + y * out.row, whole);
      }
      for (int y = share.row; y < share.row_end; ++y) {
        fill(column + y * out.row, side);
        fill(column + y * out.row + whole - side, side);
      }
      if (share.row_end == s.height) {
        for (int y = s.height; y < rows.end; ++y) fill(column + y * out.row, whole);
      }
    }
  }

  static void fill(float* start, Index count) {
    std::memset(start, 0, static_cast<size_t>(count) * sizeof(float));
  }

  // ---- what goes in and what comes out ---------------------------------------------------------

  void import() {
    const Storage& s = storage(kImage);
    const View image = view(kImage);
    const auto plane = static_cast<Index>(s.height) * s.width;
    const Range rows = kept_[at(s.local_place)];
    for (int c = 0; c < s.blocks; ++c) {
      const float* from = memory_.image + (static_cast<Index>(image_) * s.blocks + c) * plane;
      for (int y = rows.first; y < rows.end; ++y) {
        float* to = image.at + y * image.row + c * image.block;
        if (y < 0 || y >= s.height) {
          fill(to - s.border, s.block);
          continue;
        }
        std::memcpy(to, from + static_cast<Index>(y) * s.width,
                    static_cast<size_t>(s.width) * sizeof(float));
        fill(to - s.border, s.border);
        fill(to + s.width, s.border);
      }
    }
  }

  void output(const Operation& operation, int row, int end) {
    if (operation.output->form == Output::Form::boxes) {
      boxes(operation, row, end);
    } else if (operation.output->enlarged) {
      enlarged(operation, given(operation, 0), row, end);
    } else {
      auto* to = reinterpret_cast<float*>(given(operation, 0));
      copy(operation, to, row, end);
      if (operation.output->form == Output::Form::probabilities) {
        const int count = network_.program.tensors[at(operation.in)].channels;
        operation.output->multi_label ? sigmoid(to, count) : softmax(to, count);
      }
    }
  }

  size_t number(const Output& output) const {
    return static_cast<size_t>(&output - network_.program.outputs.data());
  }

  // Where this image's part of a result lies; boxes give three.
  uint8_t* given(const Operation& operation, size_t which) const {
    for (size_t i = 0; i < number(*operation.output); ++i) {
      which += network_.program.outputs[i].form == Output::Form::boxes ? 3 : 1;
    }
    const Result& result = memory_.results->at(which);
    return memory_.result_bytes + result.start + result.size / plan_.batch * image_;
  }

  static void softmax(float* values, int count) {
    const float largest = *std::max_element(values, values + count);
    float total = 0;
    for (int c = 0; c < count; ++c) total += values[c] = std::exp(values[c] - largest);
    for (int c = 0; c < count; ++c) values[c] /= total;
  }

  static void sigmoid(float* values, int count) {
    for (int c = 0; c < count; ++c) values[c] = 1 / (1 + std::exp(-values[c]));
  }

  Head head(Name name, const int32_t* channels) const {
    const View map = view(name);
    const Storage& s = storage(name);
    return {map.at, map.row, s.lanes, s.width, channels};
  }

  void boxes(const Operation& operation, int row, int end) {
    const DetectionPlan& plan = plan_.detections[number(*operation.output)];
    const Detections found(plan, memory_.arena + plan.start + plan.image * image_);
    const int32_t* channels = operation.offsets.data();
    float* scratch = memory_.arena + plan_.arena + plan_.band * thread_;
    if (operation.output_part < kLevels) {
      found.score(head(operation.in, channels), operation.output_part, row, end);
    } else if (operation.output_part == kLevels) {
      std::array<Head, kLevels> offsets;
      for (size_t level = 0; level < kLevels; ++level) {
        const auto distance = static_cast<Index>(4 * kPriorsOfCell * level);
        offsets[level] = head(operation.output->tensors[level + kLevels], channels + distance);
      }
      for (int label = row; label < end; ++label) found.suppress(offsets, label, scratch);
    } else {
      found.give(reinterpret_cast<float*>(given(operation, 0)),
                 reinterpret_cast<float*>(given(operation, 1)),
                 reinterpret_cast<int64_t*>(given(operation, 2)), scratch);
    }
  }

  void enlarged(const Operation& operation, uint8_t* to, int row, int end) {
    const View in = view(operation.in);
    const Storage& from = storage(operation.in);
    PlanesArgs a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    a.x_width = from.width;
    a.lanes = lanes_of(operation.in);
    a.classes = network_.program.tensors[at(operation.in)].channels;
    a.rows = operation.rows_at.data();
    a.row_weights = operation.row_weights.data();
    a.firsts = operation.columns_at.data();
    a.picks = operation.offsets.data();
    a.column_weights = operation.column_weights.data();
    a.scratch = memory_.arena + plan_.arena + plan_.band * thread_;
    a.scratch_row = scratch_row(from);
    a.plane = static_cast<Index>(plan_.height) * plan_.width;
    const bool whole = operation.output->form == Output::Form::map;
    a.planes = whole ? reinterpret_cast<float*>(to) : nullptr;
    a.largest = whole ? nullptr : to;
    a.width = plan_.width;
    a.row = row;
    a.row_end = end;
    kernels_.planes(a);
  }

  const int32_t* lanes_of(Name name) const { return network_.places[at(name)].lane.data(); }

  // Channels from their lanes to where the caller expects them.
  void copy(const Operation& operation, float* to, int row, int end) const {
    const Storage& s = storage(operation.in);
    const View in = view(operation.in);
    const auto channels = static_cast<int>(network_.places[at(operation.in)].lane.size());
    const bool places = operation.output->form == Output::Form::places;
    Index before = 0;
    for (size_t part = 0; part < operation.output_part; ++part) {
      const Name name = operation.output->tensors[part];
      before += static_cast<Index>(plan_.heights[at(name)]) * plan_.widths[at(name)] *
                static_cast<Index>(network_.places[at(name)].lane.size());
    }
    const auto plane = static_cast<Index>(s.height) * s.width;
    for (int y = row; y < end; ++y) {
      for (int c = 0; c < channels; ++c) {
        const int lane = lanes_of(operation.in)[c];
        const float* from = in.at + y * in.row + lane / s.lanes * in.block + lane % s.lanes;
        const Index first = static_cast<Index>(y) * s.width;
        for (int x = 0; x < s.width; ++x) {
          const Index place = places ? before + (first + x) * channels + c : c * plane + first + x;
          to[place] = from[static_cast<Index>(x) * s.lanes];
        }
      }
    }
  }

  const Network& network_;
  const Kernels& kernels_;
  const Plan& plan_;
  const int thread_;
  const Memory& memory_;
  int image_ = 0;
  std::array<Range, 64> made_, kept_;  // rows of this band: of operations, of local storages
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
