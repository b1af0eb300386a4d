#include "plan.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "error.h"
#include "geometry.h"
#include "shapes.h"

namespace espnetv2 {

namespace {

constexpr Index kAlignment = 16;  // floats: 64 bytes
constexpr Index kLargest = Index{1} << 31;
constexpr Index kBandFloats = 24 << 10;  // of what a band touches, about: it stays in near caches
constexpr int kFlatWidth = 14;           // maps narrower than a tile are flat
constexpr int kFlatPixels = 256;

using Kind = Step::Kind;

Index aligned(Index count) { return (count + kAlignment - 1) / kAlignment * kAlignment; }

class Planner {
 public:
  Planner(const Network& network, int batch, int height, int width, int threads)
      : network_(network), program_(network.program), threads_(threads) {
    plan_.batch = batch;
    plan_.height = height;
    plan_.width = width;
    std::tie(plan_.heights, plan_.widths) = shapes(program_, height, width);
    for (const Place& place : network.places) plan_.storage_of.push_back(place.storage);
    plan_.storages.resize(program_.tensors.size());
  }

  Plan plan() {
    find_borders();
    reuse_in_place();
    lay_out();
    find_groups();
    take_image_along();
    find_locals();
    assign_arena();
    finish_operations();
    return std::move(plan_);
  }

 private:
  static size_t at(Name name) { return static_cast<size_t>(name); }
  Name storage_name(Name name) const { return plan_.storage_of[at(name)]; }
  Storage& storage(Name name) { return plan_.storages[at(storage_name(name))]; }

  static std::vector<Name> reads(const Step& step) {
    std::vector<Name> names = step.inputs;
    for (const Name name : {step.residual, step.gate, step.other}) {
      if (name != kNone) names.push_back(name);
    }
    return names;
  }

  static bool costs_nothing(const Step& step) {
    return step.kind == Kind::concat || step.kind == Kind::shuffle;
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
      const bool read_elsewhere = step.inputs[0] == step.residual;
      if (!whole || !own || read_elsewhere || last[at(theirs)] != i) continue;
      if (borders_[at(theirs)] != borders_[at(mine)]) continue;
      last[at(theirs)] = last[at(mine)];
      for (Name& name : plan_.storage_of) {
        if (name == mine) name = theirs;
      }
    }
  }

  void lay_out() {
    for (size_t i = 0; i < program_.tensors.size(); ++i) {
      if (plan_.storage_of[i] != static_cast<Name>(i)) continue;
      Storage& s = plan_.storages[i];
      const bool image = i == kImage;
      s.blocks = network_.places[i].blocks;
      s.lanes = image ? 1 : network_.lanes;
      s.height = plan_.heights[i];
      s.width = plan_.widths[i];
      s.border = borders_[i];
      s.flat = !image && s.border == 0 && s.width < kFlatWidth && s.height * s.width <= kFlatPixels;
      const Index columns = s.width + 2 * s.border;
      if (s.flat) {
        s.row = columns * s.lanes;
        s.block = s.row * s.height;
        s.image = s.block * s.blocks;
      } else {
        s.block = columns * s.lanes;
        s.row = image ? aligned(s.block * s.blocks) : s.block * s.blocks;
        s.image = s.row * (s.height + 2 * s.border);
      }
      require(s.image * plan_.batch < kLargest, "the picture or the batch is too large");
    }
  }

  // ---- groups -----------------------------------------------------------------------------

  Operation import() const {
    Operation operation;
    operation.kind = Operation::Kind::import;
    operation.out = kImage;
    operation.rows = plan_.height;
    return operation;
  }

  Operation operation_of(const Step& step, size_t index) {
    Operation operation;
    operation.step = &step;
    operation.packed = &network_.packed[index];
    operation.in = step.inputs[0];
    operation.out = step.out;
    operation.rows = plan_.heights[at(step.kind == Kind::enlarge ? step.inputs[0] : step.out)];
    const bool flat = storage(step.out).flat;
    if (step.kind == Kind::conv) {
      const Storage& in = storage(step.inputs[0]);
      operation.merged = in.flat && step.stride == 1 && reach(step) == 0;
      if (operation.merged || flat) {
        operation.split = Operation::Split::parts;
        operation.parts = static_cast<int>(operation.packed->at(0).tiles.size());
      }
    } else if (flat && splits_into_blocks(step.kind)) {
      operation.split = Operation::Split::parts;
      const auto branches = static_cast<int>(std::max<size_t>(step.branches.size(), 1));
      operation.parts = network_.places[at(step.out)].blocks / branches;
    }
    return operation;
  }

  static bool splits_into_blocks(Kind kind) {
    return kind == Kind::pyramid || kind == Kind::mean || kind == Kind::adapt ||
           kind == Kind::maximum;
  }

  void find_groups() {
    open_group(import());
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      if (costs_nothing(step)) continue;
      Operation operation = operation_of(step, i);
      if (may_join(operation)) {
        plan_.groups.back().operations.push_back(std::move(operation));
      } else {
        open_group(std::move(operation));
      }
      note(step);
    }
    for (const Output& output : program_.outputs) {
      for (size_t part = 0; part < output.tensors.size(); ++part) {
        Operation operation;
        operation.kind = Operation::Kind::output;
        operation.output = &output;
        operation.output_part = part;
        operation.in = output.tensors[part];
        operation.rows =
            output.form == Output::Form::classes ? plan_.height : plan_.heights[at(operation.in)];
        touch(operation.in, static_cast<int>(plan_.groups.size()));
        open_group(std::move(operation));
      }
    }
  }

  void open_group(Operation operation) {
    Group group;
    group.rows = operation.split == Operation::Split::rows ? operation.rows : 0;
    group.operations.push_back(std::move(operation));
    plan_.groups.push_back(std::move(group));
    made_.clear();
    read_around_.clear();
  }

  // A step joins those before it if it needs, of what they make, only the rows of its own band.
  bool may_join(const Operation& operation) const {
    const Group& group = plan_.groups.back();
    const Step& step = *operation.step;
    if (operation.split != Operation::Split::rows || group.rows != operation.rows ||
        group.operations.back().kind != Operation::Kind::step || step.kind == Kind::enlarge ||
        group.operations.back().step->kind == Kind::enlarge) {
      return false;
    }
    for (const Name name : reads(step)) {
      if (made_.count(storage_name(name)) && !reads_its_row_only(step, name)) return false;
    }
    return read_around_.count(storage_name(step.out)) == 0;
  }

  void note(const Step& step) {
    const int group = static_cast<int>(plan_.groups.size()) - 1;
    made_.insert(storage_name(step.out));
    touch(step.out, group);
    for (const Name name : reads(step)) {
      touch(name, group);
      if (!reads_its_row_only(step, name)) read_around_.insert(storage_name(name));
    }
  }

  void touch(Name name, int group) {
    Storage& s = storage(name);
    if (s.first < 0) s.first = group;
    s.last = std::max(s.last, group);
  }

  // Where all that read the image run together, each band brings in the rows that it needs; a few
  // come twice, but none has left the near caches when it is read.
  void take_image_along() {
    Storage& image = storage(kImage);
    image.first = 0;
    if (plan_.groups.size() < 2 || image.last != 1 || plan_.groups[1].rows == 0) return;
    for (const Operation& operation : plan_.groups[1].operations) {
      if (operation.in != kImage) continue;
      const bool strided = operation.step->kind == Kind::conv && operation.step->stride == 2;
      if (!strided || operation.rows != (plan_.height + 1) / 2) return;
    }
    auto& operations = plan_.groups[1].operations;
    operations.insert(operations.begin(), std::move(plan_.groups[0].operations[0]));
    plan_.groups.erase(plan_.groups.begin());
    for (Storage& s : plan_.storages) {
      s.first = std::max(s.first - 1, s.first < 0 ? -1 : 0);
      s.last = std::max(s.last - 1, s.last < 0 ? -1 : 0);
    }
    image.local = true;
    image.step = 2;
  }

  // What is made and used within one group needs no more than a band of rows.
  void find_locals() {
    for (Storage& s : plan_.storages) {
      if (&s == &storage(kImage)) continue;
      if (s.first < 0 || s.first != s.last || s.border || s.flat) continue;
      s.local = plan_.groups[at(s.first)].rows > 0;
    }
    for (Group& group : plan_.groups) {
      for (const Operation& operation : group.operations) {
        if (operation.kind != Operation::Kind::step) continue;
        for (const Name name : reads(*operation.step)) {
          const bool around = !reads_its_row_only(*operation.step, name);
          if (around && storage_name(name) != kImage) storage(name).local = false;
        }
        if (operation.step->kind == Kind::enlarge) storage(operation.out).local = false;
      }
    }
    for (Group& group : plan_.groups) {
      group.band = band_of(group);
      group.name = name_of(group);
    }
  }

  // As many rows as near caches hold of what the group touches.
  int band_of(const Group& group) {
    if (group.rows == 0) return 0;
    Index touched = 0;
    for (const Operation& operation : group.operations) {
      if (operation.out != kNone) touched += storage(operation.out).row;
    }
    const auto share = (group.rows + threads_ - 1) / threads_;
    const auto fitting =
        static_cast<int>(std::max<Index>(1, kBandFloats / std::max<Index>(touched, 1)));
    const int bands = (share + fitting - 1) / fitting;
    return (share + bands - 1) / bands;
  }

  std::string name_of(const Group& group) const {
    std::string name;
    for (const Operation& operation : group.operations) {
      const Name made = operation.kind == Operation::Kind::output ? operation.in : operation.out;
      name += (name.empty() ? "" : " + ") + program_.tensors[at(made)].name;
    }
    return name;
  }

  // ---- memory -----------------------------------------------------------------------------

  void assign_arena() {
    std::vector<Storage*> shared;
    std::vector<Index> used(plan_.groups.size(), 0);
    for (Storage& s : plan_.storages) {
      if (s.first < 0) continue;
      if (s.local) {
        Index& end = used[at(s.first)];
        s.start = end;
        const Index rows = static_cast<Index>(plan_.groups[at(s.first)].band) * s.step;
        s.start += s.border * (s.row + s.lanes);
        end += aligned(s.row * (rows + 2 * s.border));
        plan_.band = std::max(plan_.band, end);
      } else {
        shared.push_back(&s);
      }
    }
    std::sort(shared.begin(), shared.end(),
              [](const Storage* a, const Storage* b) { return a->image > b->image; });
    std::vector<const Storage*> placed;
    std::vector<Index> ends;
    for (Storage* s : shared) place(*s, placed, ends);
  }

  // First fit: the lowest place that is free while the storage lives.
  void place(Storage& s, std::vector<const Storage*>& placed, std::vector<Index>& starts) {
    const Index size = aligned(s.image * plan_.batch);
    std::vector<std::pair<Index, Index>> taken;
    for (size_t i = 0; i < placed.size(); ++i) {
      if (placed[i]->first <= s.last && s.first <= placed[i]->last) {
        taken.emplace_back(starts[i], starts[i] + aligned(placed[i]->image * plan_.batch));
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
    s.start = start + s.border * (s.row + s.lanes);
    plan_.arena = std::max(plan_.arena, start + size);
    require(plan_.arena < kLargest, "the picture or the batch is too large");
  }

  // ---- numbers that depend on the size ------------------------------------------------------

  void finish_operations() {
    for (Group& group : plan_.groups) {
      for (Operation& operation : group.operations) {
        if (operation.kind == Operation::Kind::import) continue;
        const Storage& in = storage(operation.in);
        if (operation.kind == Operation::Kind::output) {
          if (operation.output->form == Output::Form::classes) {
            between(operation, in, plan_.height, plan_.width);
          }
          continue;
        }
        finish(operation, in, storage(operation.out));
      }
    }
  }

  void finish(Operation& operation, const Storage& in, const Storage& out) {
    switch (operation.step->kind) {
      case Kind::conv:
      case Kind::pyramid:
      case Kind::enlarge:
        for (const Packed& packed : *operation.packed) {
          for (const Reach& one : packed.reach) {
            operation.offsets.push_back(
                static_cast<int32_t>(one.lane / in.lanes * in.block + one.lane % in.lanes +
                                     one.down * in.row + one.right * in.lanes));
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
      case Kind::gather: {
        const Place& from = network_.places[at(operation.in)];
        for (const int channel : operation.step->picked) {
          const int lane = from.lane[at(channel)];
          operation.offsets.push_back(
              static_cast<int32_t>(lane / in.lanes * in.block + lane % in.lanes));
        }
        operation.offsets.resize(
            static_cast<size_t>(network_.places[at(operation.out)].blocks * network_.lanes), -1);
        break;
      }
      case Kind::resize:
        between(operation, in, out.height, out.width);
        break;
      case Kind::mean:
      case Kind::adapt:
        operation.rows_at = adaptive_windows(in.height, out.height);
        operation.columns_at = adaptive_windows(in.width, out.width);
        break;
      case Kind::maximum:
        operation.rows_at = strided_windows(in.height, out.height);
        operation.columns_at = strided_windows(in.width, out.width);
        break;
      default:
        break;
    }
  }

  static void between(Operation& operation, const Storage& in, int height, int width) {
    neighbours(in.height, height, operation.rows_at, operation.row_weights);
    neighbours(in.width, width, operation.columns_at, operation.column_weights);
    for (int32_t& column : operation.columns_at) column *= in.lanes;
  }

  const Network& network_;
  const Program& program_;
  const int threads_;
  Plan plan_;
  std::vector<int> borders_;
  std::set<Name> made_, read_around_;  // storages, by the open group
};

}  // namespace

Plan make_plan(const Network& network, int batch, int height, int width, int threads) {
  return Planner(network, batch, height, width, threads).plan();
}

}  // namespace espnetv2
