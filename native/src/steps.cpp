#include "steps.h"

#include <algorithm>
#include <cstring>

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

class Steps {
 public:
  explicit Steps(const Maps& maps) : maps_(maps) {}

  void run(const Operation& operation, const Share& share) {
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
      case Kind::row_mean:
      case Kind::adapt:
        window(operation, share);
        break;
      case Kind::resize:
        maps_.kernels.resize(scaled<ResizeArgs>(operation, share));
        break;
      case Kind::rescale:
        rescale(operation, share);
        break;
      case Kind::combine:
      case Kind::logistic:
      case Kind::copy:
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

 private:
  static size_t at(Name name) { return Maps::at(name); }
  const Storage& storage(Name name) const { return maps_.storage(name); }
  View view(Name name) const { return maps_.view(name); }
  int blocks(Name name) const { return maps_.blocks(name); }
  Index lanes() const { return maps_.network.lanes; }
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
    a.out_wide = out.value == sizeof(float);
    if (step.residual != kNone) {
      const View residual = view(step.residual);
      a.residual = residual.at;
      a.residual_row = residual.row;
      a.residual_block = residual.block;
    }
    if (step.also != kNone) {
      const View also = view(step.also);
      a.also = also.at;
      a.also_row = also.row;
      a.also_depth = packed.also_depth;
      a.also_offsets = operation.offsets.data() + operation.offsets.size() - at(packed.also_depth);
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
    if (to.lanes == 1) {
      a.x_step = 1;
      a.x_odd = step.stride == 1 ? from.odd : 0;
      a.out_odd = to.odd;
      if (to.border > 0) a.out_room = to.odd ? to.odd : to.block;
      maps_.kernels.conv_planar(a);
      return;
    }
    if (packed.bytes) {
      if (in.value == 1) a.x_row_bytes = in.row;
      a.inverse = 1 / step.input_scale;
      a.zero = static_cast<float>(step.input_zero);
      a.factor = floats(packed.factor);
      a.sources = static_cast<int>(packed.reach.size());
      a.granules = packed.granules.data();
      a.bytes = static_cast<uint8_t*>(maps_.room());
      a.bytes_step = bytes_step(operation, from.lanes);
      maps_.kernels.conv_bytes(a);
      return;
    }
    multiply(packed, a);
  }

  void multiply(const Packed& packed, const ConvArgs& a) const {
    (packed.blocks ? maps_.kernels.conv_blocks : maps_.kernels.conv)(a);
  }

  // What all steps from map to map have in common.
  template <class Args>
  Args between(const Operation& operation, const Share& share) const {
    const View in = view(operation.in), out = view(operation.out);
    const Packed& packed = operation.packed->at(0);
    Args a{};
    a.x = in.at;
    a.x_row = in.row;
    a.x_block = in.block;
    a.out = out.at;
    a.out_row = out.row;
    a.out_block = out.block;
    a.out_wide = out.value == sizeof(float);
    a.rise = floats(packed.rise);
    a.fall = floats(packed.fall);
    a.blocks = blocks(operation.out);
    a.width = storage(operation.out).width;
    a.row = share.row;
    a.row_end = share.row_end;
    return a;
  }

  void pyramid(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    const Packed& packed = operation.packed->at(0);
    auto a = between<PyramidArgs>(operation, share);
    a.x_row *= step.stride;
    a.x_step = lanes() * step.stride;
    a.x_wide = storage(operation.in).value == sizeof(float);
    a.branches = static_cast<int>(step.branches.size());
    a.taps = packed.taps.data();
    a.dilations = packed.dilations.data();
    a.offsets = operation.offsets.data();
    a.weights = floats(packed.weights);
    a.bias = floats(packed.bias);
    a.scale = floats(packed.scale);
    a.shift = floats(packed.shift);
    a.running = step.running;
    a.blocks /= a.branches;
    a.block = share.part;
    a.block_end = share.part_end;
    if (const Step* reader = storage(operation.out).rounded_for) {
      a.out_bytes = true;
      a.inverse = 1 / reader->input_scale;
      a.zero = static_cast<float>(reader->input_zero);
    }
    if (storage(operation.in).lanes > 1) return maps_.kernels.pyramid(a);
    a.channels = maps_.channels(operation.in);
    a.turned = storage(operation.out).lanes > 1;
    maps_.kernels.pyramid_planar(a);
  }

  void shrink(const Operation& operation, const Share& share) {
    auto a = between<ShrinkArgs>(operation, share);
    a.x_odd = storage(operation.in).odd;
    maps_.kernels.shrink(a);
  }

  void window(const Operation& operation, const Share& share) {
    auto a = between<WindowArgs>(operation, share);
    a.rows = operation.rows_at.data();
    a.columns = operation.columns_at.data();
    a.largest = operation.step->kind == Kind::maximum;
    a.block = share.part;
    a.block_end = share.part_end;
    maps_.kernels.window(a);
  }

  // Where an output pixel's rows and columns lie, and what they weigh.
  template <class Args>
  Args scaled(const Operation& operation, const Share& share) const {
    auto a = between<Args>(operation, share);
    a.rows = operation.rows_at.data();
    a.row_weights = operation.row_weights.data();
    a.columns = operation.columns_at.data();
    a.column_weights = operation.column_weights.data();
    return a;
  }

  void rescale(const Operation& operation, const Share& share) {
    auto a = scaled<RescaleArgs>(operation, share);
    a.window_rows = a.rows[1] - a.rows[0];
    a.window_columns = a.columns[1] - a.columns[0];
    a.even = operation.even;
    a.even_end = operation.even_end;
    a.weights = floats(operation.packed->at(0).weights);
    a.bias = floats(operation.packed->at(0).bias);
    maps_.kernels.rescale(a);
  }

  void combine(const Operation& operation, const Share& share) {
    const Step& step = *operation.step;
    auto a = between<CombineArgs>(operation, share);
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
    a.scale = floats(operation.packed->at(0).scale);
    a.shift = floats(operation.packed->at(0).shift);
    a.logistic = step.kind == Kind::logistic;
    maps_.kernels.combine(a);
  }

  void gather(const Operation& operation, const Share& share) {
    auto a = between<GatherArgs>(operation, share);
    a.counts = operation.counts.data();
    a.sources = operation.offsets.data();
    a.picks = operation.places.data();
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
      a.out_wide = out.value == sizeof(float);
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
    if (s.lanes == 1 && operation.step->kind == Kind::conv) {
      clear_around_planes(s, share, out, end);
    } else if (s.odd) {
      clear_border(s, share, first, end, out.at, (s.width + 1) / 2, (s.border + 1) / 2);
      clear_border(s, share, first, end, out.move(s.odd), s.width / 2, (s.border + 1) / 2);
    } else {
      clear_border(s, share, first, end, out.at, s.width, s.border);
    }
  }

  // A convolution of planes fills its lines up itself, which is the border of the next one too.
  static void clear_around_planes(const Storage& s, const Share& share, const View& out, int end) {
    const Index side = static_cast<Index>(s.border) * s.value;
    const auto from = [&](int y) { return out.move(y * out.row) - side; };
    const Index whole = side + end * s.block * s.value;
    for (int y = share.row; y < share.row_end; ++y) clear(from(y), side);
    if (s.local) return;
    for (int y = -s.border; y < 0 && share.row == 0; ++y) clear(from(y), whole);
    if (share.row_end < s.height) return;
    for (int y = s.height; y < s.height + s.border; ++y) clear(from(y), whole);
  }

  // Of blocks from the first to the end, `border` pixels beside `width` from `at` on.
  static void clear_border(const Storage& s, const Share& share, int first, int end, char* at,
                           int width, int border) {
    const Index side = static_cast<Index>(border) * s.lanes;
    for (int block = first; block < end; ++block) {
      const auto from = [&](int y) { return at + (block * s.block - side + y * s.row) * s.value; };
      const Index whole = static_cast<Index>(width) * s.lanes + 2 * side;
      if (share.row == 0 && !s.local) {
        for (int y = -s.border; y < 0; ++y) clear(from(y), whole * s.value);
      }
      for (int y = share.row; y < share.row_end; ++y) {
        clear(from(y), side * s.value);
        clear(from(y) + (whole - side) * s.value, side * s.value);
      }
      if (share.row_end == s.height && !s.local) {
        for (int y = s.height; y < s.height + s.border; ++y) clear(from(y), whole * s.value);
      }
    }
  }

  const Maps& maps_;
};

}  // namespace

void run_step(const Maps& maps, const Operation& operation, const Share& share) {
  Steps(maps).run(operation, share);
}

}  // namespace espnetv2
