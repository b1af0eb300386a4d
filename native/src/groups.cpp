#include "groups.h"

#include <algorithm>
#include <map>
#include <set>

#include "band_rows.h"
#include "geometry.h"
#include "shapes.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

// Floats of a map, for each thread, that leaves the second cache soon.
constexpr Index kLarge = 96 << 10;
constexpr int kMostAttempts = 200;
constexpr double kMostWaste = 1.15;  // of all work: what is made twice

size_t at(Name name) { return static_cast<size_t>(name); }

// Rows of an input that a step needs for rows of its result.
Operation::Read read_of(const Step& step, Name name, Name storage) {
  Operation::Read read;
  read.storage = storage;
  if (reads_its_row_only(step, name)) return read;
  read.around = true;
  read.windows = step.kind == Kind::resize || step.kind == Kind::adapt || step.kind == Kind::mean ||
                 step.kind == Kind::maximum || step.kind == Kind::rescale;
  read.inclusive = step.kind == Kind::resize;
  read.stride = step.kind == Kind::shrink ? 2 : step.stride;
  read.reach = reach(step);
  return read;
}

class Grouper {
 public:
  Grouper(const Network& network, Plan& plan, int threads)
      : network_(network),
        program_(network.program),
        plan_(plan),
        threads_(threads),
        bands_(network, plan, threads) {}

  void run() {
    while (!attempt()) {
    }
    for (Group& group : plan_.groups) group.name = name_of(group);
  }

 private:
  Name storage_name(Name name) const { return plan_.storage_of[at(name)]; }
  Storage& storage(Name name) { return plan_.storages[at(storage_name(name))]; }

  // Groups all steps; gives false, and notes the step that must not join, where a row would be
  // made twice that may be made only once.
  bool attempt() {
    plan_.groups.clear();
    for (Storage& s : plan_.storages) {
      s.first = s.last = -1;
      s.local = false;
      s.rows_room = 0;
    }
    joined_around_.clear();
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      if (costs_nothing(plan_, program_.steps[i])) continue;
      place(operation_of(program_.steps[i], i), i);
      if (program_.steps[i].inputs[0] == kImage) bring_image();
      note(program_.steps[i]);
    }
    size_t number = program_.steps.size();
    for (const Output& output : program_.outputs) {
      for (size_t part = 0; part < output.parts(); ++part) {
        place(giving(output, part), number++);
        for (const Name name : output.tensors) touch(name);
      }
    }
    find_locals();
    for (size_t i = 0; i < plan_.groups.size(); ++i) {
      Group& group = plan_.groups[i];
      if (sound(group)) {
        const bool fits = bands_.choose(group);
        if (joined_around_[i].empty() || (fits && bands_.waste(group) <= kMostWaste)) continue;
      }
      set_apart(joined_around_[i].back());
      return false;
    }
    return true;
  }

  // What was set apart behind this step may join again: it had another group before it.
  void set_apart(size_t step) {
    if (++attempts_ < kMostAttempts) apart_.erase(apart_.upper_bound(step), apart_.end());
    apart_.insert(step);
  }

  // ---- operations -------------------------------------------------------------------------------

  Operation import() {
    Operation operation;
    operation.kind = Operation::Kind::import;
    operation.out = kImage;
    operation.rows = plan_.height;
    return operation;
  }

  Operation giving(const Output& output, size_t part) {
    Operation operation;
    operation.kind = Operation::Kind::output;
    operation.output = &output;
    operation.output_part = part;
    operation.in = output.tensors[part];
    operation.rows = plan_.heights[at(operation.in)];
    if (output.enlarged) {
      operation.rows = plan_.height;
      Operation::Read read;
      read.storage = storage_name(operation.in);
      read.around = read.windows = read.inclusive = true;
      operation.reads.push_back(read);
      find_enlargement(operation, storage(operation.in), plan_.height, plan_.width);
    } else if (output.form == Output::Form::boxes && part >= kLevels) {
      // threads share the classes, then one chooses among all
      operation.rows = part == kLevels ? output.values - 1 : 1;
    }
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
      for (const Name name : {step.residual, step.also}) {  // their pixels must be one row as well
        operation.merged &= name == kNone || storage(name).flat;
      }
      if (operation.merged || flat) {
        operation.split = Operation::Split::parts;
        operation.parts = static_cast<int>(operation.packed->at(0).tiles.size());
      }
    } else if (flat && splits_into_blocks(step.kind)) {
      operation.split = Operation::Split::parts;
      const auto branches = static_cast<int>(std::max<size_t>(step.branches.size(), 1));
      operation.parts = network_.places[at(step.out)].blocks / branches;
    }
    for (const Name name : reads(step)) {
      operation.reads.push_back(read_of(step, name, storage_name(name)));
    }
    find_windows(operation, storage(step.inputs[0]), storage(step.out));
    return operation;
  }

  static bool splits_into_blocks(Kind kind) {
    return kind == Kind::pyramid || kind == Kind::mean || kind == Kind::adapt ||
           kind == Kind::maximum;
  }

  // ---- groups -----------------------------------------------------------------------------------

  // Into the last group, or into one of its own.
  void place(Operation operation, size_t index) {
    const int joins = may_join(operation, index);
    if (joins == 2) joined_around_[plan_.groups.size() - 1].push_back(index);
    if (!joins) return open(std::move(operation));
    plan_.groups.back().rows = operation.rows;
    plan_.groups.back().operations.push_back(std::move(operation));
  }

  void open(Operation operation) {
    Group group;
    group.rows = operation.split == Operation::Split::rows ? operation.rows : 0;
    group.operations.push_back(std::move(operation));
    plan_.groups.push_back(std::move(group));
    made_.clear();
    read_around_.clear();
  }

  // Every group that looks at the image brings in the rows that it needs, band by band.
  void bring_image() {
    if (!made_.insert(kImage).second) return;
    auto& operations = plan_.groups.back().operations;
    operations.insert(operations.begin(), import());
  }

  // 0: no; 1: it needs no other rows than its own; 2: it needs others, which are made twice.
  int may_join(const Operation& operation, size_t index) {
    if (plan_.groups.empty()) return 0;
    const Group& group = plan_.groups.back();
    const Operation& last = group.operations.back();
    if (operation.split != Operation::Split::rows || group.rows == 0 || apart_.count(index) ||
        (last.step && last.step->kind == Kind::enlarge) ||
        group.operations.size() + 1 >= kMostOperations) {  // one is left for the image
      return 0;
    }
    if (const Step* step = operation.step) {
      if ((step->gate != kNone && made_.count(storage_name(step->gate))) ||
          step->kind == Kind::enlarge || step->kind == Kind::mean ||
          read_around_.count(storage_name(operation.out))) {
        return 0;
      }
    } else if (!operation.output->enlarged) {
      return 0;
    }
    bool around = false;
    for (const Operation::Read& read : operation.reads) {
      if (!read.around || !made_.count(read.storage)) continue;
      if (operation.step && read.storage == storage_name(operation.out)) return 0;
      const Storage& s = plan_.storages[at(read.storage)];
      const bool worthwhile = s.lanes == 1 || s.image / threads_ >= kLarge;
      if (s.flat || !worthwhile) return 0;
      around = true;
    }
    if (around) return attempts_ < 3 * kMostAttempts ? 2 : 0;
    return group.rows == operation.rows;
  }

  void note(const Step& step) {
    made_.insert(storage_name(step.out));
    touch(step.out);
    for (const Name name : reads(step)) {
      touch(name);
      if (!reads_its_row_only(step, name)) read_around_.insert(storage_name(name));
    }
  }

  // By the last group.
  void touch(Name name) {
    Storage& s = storage(name);
    s.last = static_cast<int>(plan_.groups.size()) - 1;
    if (s.first < 0) s.first = s.last;
  }

  // What is made and used within one group needs no more than a band of rows.
  void find_locals() {
    for (Storage& s : plan_.storages) {
      s.local = s.first >= 0 && s.first == s.last && !s.flat && plan_.groups[at(s.first)].rows > 0;
    }
    storage(kImage).local = true;  // in every group anew
    for (const Group& group : plan_.groups) {
      const Operation& last = group.operations.back();
      if (last.kind == Operation::Kind::step && last.step->kind == Kind::enlarge) {
        storage(last.out).local = storage(last.in).local = false;
      }
      for (const Operation& operation : group.operations) {
        if (operation.kind == Operation::Kind::step && operation.step->kind == Kind::mean) {
          storage(operation.in).local = storage(operation.out).local = false;
        }
      }
    }
    for (Group& group : plan_.groups) number_locals(group);
  }

  void number_locals(Group& group) {
    group.locals.clear();
    const auto number = [&](Name name) {
      const auto found = std::find(group.locals.begin(), group.locals.end(), name);
      if (found != group.locals.end()) return static_cast<int>(found - group.locals.begin());
      group.locals.push_back(name);
      return static_cast<int>(group.locals.size()) - 1;
    };
    for (Operation& operation : group.operations) {
      operation.local = -1;
      if (operation.kind != Operation::Kind::output && storage(operation.out).local) {
        operation.local = number(storage_name(operation.out));
        storage(operation.out).local_place = operation.local;
      }
      for (Operation::Read& read : operation.reads) {
        read.local = plan_.storages[at(read.storage)].local ? number(read.storage) : -1;
      }
    }
  }

  // Whether no row is made twice but of what is local, and nothing needs more rows of a map than
  // are overwritten in place later: those rows would be of two maps.
  bool sound(const Group& group) {
    if (group.locals.size() > kMostLocals) return false;
    std::set<Name> made, twice, written;  // storages
    for (const Operation& operation : group.operations) {
      if (operation.out != kNone) made.insert(storage_name(operation.out));
    }
    for (auto operation = group.operations.rbegin(); operation != group.operations.rend();
         ++operation) {
      const bool more = operation->out != kNone && twice.count(storage_name(operation->out)) > 0;
      if (more && !storage(operation->out).local) return false;
      if (operation->out != kNone) written.insert(storage_name(operation->out));
      for (const Operation::Read& read : operation->reads) {
        if (!made.count(read.storage) || !(more || read.around)) continue;
        twice.insert(read.storage);
        const bool own = operation->out != kNone && read.storage == storage_name(operation->out);
        if (!own && written.count(read.storage)) return false;
      }
    }
    return true;
  }

  std::string name_of(const Group& group) const {
    std::string name;
    for (const Operation& operation : group.operations) {
      const Name made = operation.kind == Operation::Kind::output ? operation.in : operation.out;
      name += (name.empty() ? "" : " + ") + program_.tensors[at(made)].name;
    }
    return name;
  }

  const Network& network_;
  const Program& program_;
  Plan& plan_;
  const int threads_;
  BandRows bands_;
  std::set<Name> made_, read_around_;                    // storages, by the open group
  std::map<size_t, std::vector<size_t>> joined_around_;  // steps, of each group
  int attempts_ = 0;
  std::set<size_t> apart_;  // steps that open a group
};

}  // namespace

void group_steps(const Network& network, Plan& plan, int threads) {
  Grouper(network, plan, threads).run();
}

}  // namespace espnetv2
