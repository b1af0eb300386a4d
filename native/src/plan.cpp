#include "plan.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "error.h"
#include "geometry.h"
#include "groups.h"
#include "shapes.h"
#include "values.h"

namespace espnetv2 {

namespace {

constexpr Index kLargest = Index{1} << 31;
constexpr int kFlatWidth = 14;  // maps narrower than a tile are flat
constexpr int kFlatPixels = 256;
constexpr Index kPlaneLine = kCacheLine / 4;  // floats
constexpr Index kFromMemory = 12 << 20;       // bytes of a map that leaves the last cache

using Kind = Step::Kind;

class Planner {
 public:
  Planner(const Network& network, int batch, int height, int width, int threads)
      : network_(network), program_(network.program), threads_(threads) {
    plan_.batch = batch;
    plan_.value = network.value;
    plan_.height = height;
    plan_.width = width;
    std::tie(plan_.heights, plan_.widths) = shapes(program_, height, width);
  }

  Plan plan() {
    do {
      name_storages();
      find_borders();
      reuse_in_place();
      lay_out();
      group_steps(network_, plan_, threads_);
    } while (drop_copies());
    assign_arena();
    plan_detections();
    finish_operations();
    make_room();
    require(plan_.arena + plan_.band * threads_ < kLargest,
            "the picture or the batch is too large");
    return std::move(plan_);
  }

 private:
  static size_t at(Name name) { return static_cast<size_t>(name); }
  // Values up to the next cache line.
  Index aligned(Index count) const {
    const Index line = static_cast<Index>(kCacheLine) / plan_.value;
    return (count + line - 1) / line * line;
  }
  static Index whole_lines(Index floats) {
    return (floats + kPlaneLine - 1) / kPlaneLine * kPlaneLine;
  }
  Name storage_name(Name name) const { return plan_.storage_of[at(name)]; }
  Storage& storage(Name name) { return plan_.storages[at(storage_name(name))]; }

  void name_storages() {
    plan_.storage_of.clear();
    for (const Place& place : network_.places) plan_.storage_of.push_back(place.storage);
    for (Name& name : plan_.storage_of) {
      const auto& dropped = plan_.dropped;
      for (auto it = dropped.find(name); it != dropped.end(); it = dropped.find(name)) {
        name = it->second;
      }
    }
    plan_.storages.assign(program_.tensors.size(), Storage());
  }

  // A copy is of use where its map is no more than a band of rows; else it is the map. Where such a
  // map can be made again, only small ones are copied: others would come back from memory. Gives
  // whether there is one more that is not made.
  bool drop_copies() {
    auto& dropped = plan_.dropped;
    const size_t before = dropped.size();
    const auto owns = [&](Name name) { return network_.places[at(name)].storage == name; };
    std::map<Name, Name> copies;
    for (const Step& step : program_.steps) {
      const Name whole = step.kind == Kind::copy ? step.inputs[0] : step.again;
      if (whole == kNone) continue;
      if (step.kind == Kind::copy) copies[whole] = step.out;
      const Storage& s = storage(whole);
      const bool may = owns(step.out), large = s.image * s.value * plan_.batch >= kFromMemory;
      if (may && owns(whole) && !s.local) {
        dropped.emplace(step.out, whole);
      } else if (step.again != kNone) {
        may && !large ? dropped.emplace(step.out, copies[whole])
                      : dropped.emplace(copies[whole], whole);
      }
    }
    return dropped.size() > before;
  }

  void find_borders() {
    borders_.assign(program_.tensors.size(), 0);
    for (const Step& step : program_.steps) {
      int& border = borders_[at(storage_name(step.inputs[0]))];
      border = std::max(border, reach(step));
    }
  }

  // A unit's result takes the place of its input, where that is not needed any more.
  void reuse_in_place() {
    std::vector<size_t> last(program_.tensors.size(), 0);
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      for (const Name name : reads(program_.steps[i])) last[at(storage_name(name))] = i;
    }
    for (const Output& output : program_.outputs) {
      for (const Name name : output.tensors) last[at(storage_name(name))] = program_.steps.size();
    }
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      if (step.residual == kNone || step.kind != Kind::conv) continue;
      const Name mine = step.out, theirs = storage_name(step.residual);
      const bool whole = network_.places[at(theirs)].blocks == network_.places[at(mine)].blocks;
      const bool own = network_.places[at(mine)].storage == mine && mine != theirs;
      const bool read_elsewhere = storage_name(step.inputs[0]) == theirs;
      if (!whole || !own || read_elsewhere || last[at(theirs)] != i) continue;
      if (borders_[at(theirs)] != borders_[at(mine)]) continue;
      if (network_.places[at(theirs)].parted != network_.places[at(mine)].parted) continue;
      last[at(theirs)] = last[at(mine)];
      for (Name& name : plan_.storage_of) {
        if (name == mine) name = theirs;
      }
    }
  }

  void lay_out() {
    std::vector<bool> by_rows(program_.tensors.size(), false);  // however small
    for (const Step& step : program_.steps) {
      const bool own = step.inputs[0] == kImage || step.kind == Kind::row_mean;
      if (own) by_rows[at(storage_name(step.out))] = true;
    }
    for (size_t i = 0; i < program_.tensors.size(); ++i) {
      if (plan_.storage_of[i] != static_cast<Name>(i)) continue;
      Storage& s = plan_.storages[i];
      const bool planar = network_.places[i].planar;
      s.blocks = network_.places[i].blocks;
      s.lanes = planar ? 1 : network_.lanes;
      s.height = plan_.heights[i];
      s.width = plan_.widths[i];
      s.border = borders_[i];
      std::tie(s.value, s.rounded_for) = find_values(network_, plan_, static_cast<Name>(i));
      s.flat = !planar && !by_rows[i] && s.border == 0 && s.width < kFlatWidth &&
               s.height * s.width <= kFlatPixels;
      if (planar) {
        lay_out_planes(s, network_.places[i].parted);
      } else if (s.flat) {
        s.row = s.width * s.lanes;
        s.block = s.row * s.height;
        s.image = s.block * s.blocks;
      } else {
        s.left = s.border;
        s.block = (s.width + 2 * s.border) * s.lanes;
        s.row = s.block * s.blocks;
        s.image = s.row * (s.height + 2 * s.border);
      }
      require(s.image * plan_.batch < kLargest, "the picture or the batch is too large");
    }
  }

  // Planes begin on cache lines, since vectors go along them. What lies behind one is the border of
  // the next one too.
  static void lay_out_planes(Storage& s, bool parted) {
    const int parts = parted ? 2 : 1;
    const Index line = whole_lines((s.width + parts - 1) / parts + (s.border + parts - 1) / parts);
    s.odd = parted ? line : 0;
    s.block = parts * line;
    s.left = s.border > 0 ? static_cast<int>(kPlaneLine) : 0;
    // vectors may end behind the last plane, those of every other pixel farther
    s.row = s.left + s.block * s.blocks + (s.border > 0 ? (parted ? 2 : 4) * kPlaneLine : 0);
    s.image = s.row * (s.height + 2 * s.border);
  }

  // ---- memory -----------------------------------------------------------------------------

  void assign_arena() {
    std::vector<Storage*> shared;
    std::vector<Index> used(plan_.groups.size(), 0);
    const Storage& image = storage(kImage);
    const Index room = aligned(plan_.values_of(image.row * image.rows_room, image));
    for (size_t i = 0; i < plan_.groups.size(); ++i) {
      if (plan_.groups[i].operations[0].kind == Operation::Kind::import) used[i] = room;
    }
    plan_.band = room;
    for (Storage& s : plan_.storages) {
      if (&s == &image) {
        s.origin = s.left * s.lanes;
      } else if (s.local) {
        Index& end = used[at(s.first)];
        s.start = end;
        s.origin = s.left * s.lanes;
        end += aligned(plan_.values_of(s.row * s.rows_room, s));
        plan_.band = std::max(plan_.band, end);
      } else if (s.first >= 0) {
        shared.push_back(&s);
      }
    }
    std::sort(shared.begin(), shared.end(), [](const Storage* a, const Storage* b) {
      return a->image * a->value > b->image * b->value;
    });
    std::vector<const Storage*> placed;
    std::vector<Index> ends;
    for (Storage* s : shared) place(*s, placed, ends);
  }

  Index room(const Storage& s) const { return aligned(plan_.values_of(s.image * plan_.batch, s)); }

  // First fit: the lowest place that is free while the storage lives.
  void place(Storage& s, std::vector<const Storage*>& placed, std::vector<Index>& starts) {
    const Index size = room(s);
    std::vector<std::pair<Index, Index>> taken;
    for (size_t i = 0; i < placed.size(); ++i) {
      if (placed[i]->first <= s.last && s.first <= placed[i]->last) {
        taken.emplace_back(starts[i], starts[i] + room(*placed[i]));
      }
    }
    std::sort(taken.begin(), taken.end());
    Index start = 0;
    for (const auto& [from, end] : taken) {
      if (start + size <= from) break;
      start = std::max(start, end);
    }
    placed.push_back(&s);
    starts.push_back(start);
    s.start = start;
    s.origin = s.border * s.row + s.left * s.lanes;
    plan_.arena = std::max(plan_.arena, start + size);
    require(plan_.arena < kLargest, "the picture or the batch is too large");
  }

  // Detections work behind all maps.
  void plan_detections() {
    plan_.detections.resize(program_.outputs.size());
    for (size_t i = 0; i < program_.outputs.size(); ++i) {
      const Output& output = program_.outputs[i];
      if (output.form != Output::Form::boxes) continue;
      DetectionPlan& plan = plan_.detections[i];
      plan = DetectionPlan::of(output, plan_.heights, plan_.widths);
      plan.start = aligned(plan_.arena);
      plan_.arena = plan.start + plan_.values_of(plan.image * plan_.batch);
      plan_.band = std::max(plan_.band, aligned(plan_.values_of(plan.scratch())));
      require(plan_.arena < kLargest, "the picture or the batch is too large");
    }
  }

  // What a kernel needs for itself lies behind all of a thread's maps.
  void make_room() {
    Index most = 0;  // bytes
    for (const Group& group : plan_.groups) {
      for (const Operation& operation : group.operations) {
        if (operation.kind == Operation::Kind::output && operation.output->enlarged) {
          const Place& place = network_.places[at(operation.in)];
          const auto classes = static_cast<Index>(place.lane.size());
          const Index floats = place.blocks * network_.lanes * kPlane + 2 * classes * kStrip;
          most = std::max(most, floats * static_cast<Index>(sizeof(float)));
        }
        if (operation.kind != Operation::Kind::step || operation.packed->empty()) continue;
        if (!operation.packed->at(0).bytes) continue;
        const Storage& out = storage(operation.out);
        const Index width = operation.merged ? out.width * out.height : out.width;
        const Index step = bytes_step(operation, network_.lanes), row = width * step;
        most = std::max(most, std::max(row, kByteRoom) + kSparePixels * step);
      }
    }
    plan_.room = plan_.band;
    plan_.band += aligned(most / plan_.value);
  }

  // ---- numbers that depend on the size ------------------------------------------------------

  void finish_operations() {
    for (Group& group : plan_.groups) {
      for (Operation& operation : group.operations) {
        if (operation.kind == Operation::Kind::import) continue;
        const Storage& in = storage(operation.in);
        if (operation.kind == Operation::Kind::output) {
          const Output::Form form = operation.output->form;
          require((form != Output::Form::vector && form != Output::Form::probabilities) ||
                      in.height * in.width == 1,
                  "a vector is made of a map of several pixels");
          if (operation.output->enlarged) {
            require(in.width <= plan_.width, "logits are wider than the image");
          } else if (form == Output::Form::boxes) {
            find_channels(operation);
          }
          continue;
        }
        finish(operation, in, storage(operation.out));
      }
    }
  }

  // Of the map of scores that a part reads, or of all offsets: each channel's distance from its
  // pixel.
  void find_channels(Operation& operation) {
    const bool scores = operation.output_part < kLevels;
    const size_t first = scores ? operation.output_part : kLevels;
    for (size_t i = first; i < (scores ? first + 1 : 2 * kLevels); ++i) {
      const Name name = operation.output->tensors[i];
      const Storage& in = storage(name);
      for (const int32_t lane : network_.places[at(name)].lane) {
        operation.offsets.push_back(
            static_cast<int32_t>(lane / in.lanes * in.block + lane % in.lanes));
      }
    }
  }

  void finish(Operation& operation, const Storage& in, const Storage& out) {
    switch (operation.step->kind) {
      case Kind::conv:
      case Kind::pyramid:
      case Kind::enlarge:
        for (const Packed& packed : *operation.packed) {
          for (size_t i = 0; i < packed.reach.size(); ++i) {
            const Reach& one = packed.reach[i];
            const bool also = i + at(packed.also_depth) >= packed.reach.size();
            const Storage& from = also ? storage(operation.step->also) : in;
            const Index right =
                from.odd ? (one.right & 1) * from.odd + (one.right >> 1) : one.right * from.lanes;
            operation.offsets.push_back(static_cast<int32_t>(one.lane / from.lanes * from.block +
                                                             one.lane % from.lanes +
                                                             one.down * from.row + right));
          }
        }
        if (operation.merged && !out.flat) {
          for (int y = 0; y < out.height; ++y) {
            for (int x = 0; x < out.width; ++x) {
              operation.places.push_back(static_cast<int32_t>(y * out.row + x * out.lanes));
            }
          }
        }
        break;
      case Kind::gather:
        finish_gather(operation, in);
        break;
      default:
        break;
    }
  }

  // For each output block: the input blocks that it takes lanes from, and which.
  void finish_gather(Operation& operation, const Storage& in) {
    const Place& from = network_.places[at(operation.in)];
    const std::vector<int>& picked = operation.step->picked;
    const auto count = static_cast<int>(picked.size());
    for (int first = 0; first < count; first += in.lanes) {
      std::map<int, std::vector<int32_t>> sources;
      for (int lane = 0; lane < in.lanes && first + lane < count; ++lane) {
        const int taken = from.lane[at(picked[at(first + lane)])];
        auto& picks = sources[taken / in.lanes];
        picks.resize(at(in.lanes), -1);
        picks[at(lane)] = taken % in.lanes;
      }
      operation.counts.push_back(static_cast<int32_t>(sources.size()));
      for (const auto& [block, picks] : sources) {
        operation.offsets.push_back(static_cast<int32_t>(block * in.block));
        operation.places.insert(operation.places.end(), picks.begin(), picks.end());
      }
    }
  }

  const Network& network_;
  const Program& program_;
  const int threads_;
  Plan plan_;
  std::vector<int> borders_;
};

}  // namespace

Plan make_plan(const Network& network, int batch, int height, int width, int threads) {
  return Planner(network, batch, height, width, threads).plan();
}

}  // namespace espnetv2
