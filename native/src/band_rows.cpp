#include "band_rows.h"

#include <algorithm>
#include <array>

#include "ranges.h"

namespace espnetv2 {

namespace {

using Kind = Step::Kind;

constexpr Index kNear = 24 << 10;    // floats of a band: they stay in the nearest caches
constexpr Index kFar = 512 << 10;    // of one that keeps rows of the band before: in the second
constexpr int kFewest = 2;           // rows, which share weights; a band may be larger for them
constexpr Index kMost = 1200 << 10;  // where rows are kept, up to this: two groups would move more
constexpr int kRoom = 2;             // times what a band keeps: rows move once it is used up

size_t at(Name name) { return static_cast<size_t>(name); }

}  // namespace

bool BandRows::choose(Group& group) {
  if (group.rows == 0) return true;
  const int share = (group.rows + threads_ - 1) / threads_;
  bool twice = false;
  for (const Operation& operation : group.operations) {
    for (const Operation::Read& read : operation.reads) twice |= read.around && read.local >= 0;
  }
  int band = share;  // of bands, the last rows of one are the first that the next one needs
  const int least = std::min(share, kFewest);
  while (band > least && touched(group, band) > (twice ? kFar : kNear)) {
    band = std::max(least, (band + 1) / 2);
  }
  const bool fits = !twice || touched(group, band) <= kMost;
  const int bands = (share + band - 1) / band;
  group.band = (share + bands - 1) / bands;
  keep_rows(group);
  return fits;
}

double BandRows::waste(const Group& group) const {
  if (group.rows == 0 || group.locals.empty()) return 1;
  Range made[kMostOperations], kept[kMostLocals], known[kMostLocals];
  const int share = (group.rows + threads_ - 1) / threads_;
  const int row = std::max(0, (group.rows - share) / 2);
  find_ranges(group, row, std::min(row + share, group.rows), known, made, kept);
  double done = 0, needed = 0;
  for (size_t i = 0; i < group.operations.size(); ++i) {
    const Operation& operation = group.operations[i];
    if (operation.kind != Operation::Kind::step) continue;
    const double work = work_of_row(operation);
    done += work * made[i].count();
    needed += work * share * operation.rows / group.rows;
  }
  return done / needed;
}

const Storage& BandRows::storage(Name name) const {
  return plan_.storages[at(plan_.storage_of[at(name)])];
}

Index BandRows::touched(const Group& group, int band) const {
  Range made[kMostOperations], kept[kMostLocals], known[kMostLocals];
  const int middle = std::max(0, (group.rows - band) / 2);
  find_ranges(group, middle, std::min(middle + band, group.rows), known, made, kept);
  Index total = 0;
  for (size_t i = 0; i < group.operations.size(); ++i) {
    const Operation& operation = group.operations[i];
    if (operation.out == kNone) continue;
    const Index own = network_.places[at(operation.out)].blocks * storage(operation.out).block;
    total += own * made[i].count();
  }
  return total;
}

double BandRows::work_of_row(const Operation& operation) const {
  const auto moved = static_cast<double>(network_.places[at(operation.out)].blocks);
  const Kind kind = operation.step->kind;
  double steps = moved * (kind == Kind::resize || kind == Kind::adapt ? 12 : 6);
  if (kind == Kind::rescale) {
    const int rows = operation.rows_at[1] - operation.rows_at[0];
    const int columns = operation.columns_at[1] - operation.columns_at[0];
    steps += moved * 3 * (rows + columns);
  }
  for (const Packed& packed : *operation.packed) {
    for (const Tile& tile : packed.tiles) steps += tile.depth * tile.blocks;
    for (const int taps : packed.taps) {
      steps += taps * moved / static_cast<double>(packed.taps.size());
    }
  }
  const Storage& out = storage(operation.out);
  return steps * out.width * out.lanes;
}

void BandRows::keep_rows(const Group& group) {
  Range made[kMostOperations], kept[kMostLocals], known[kMostLocals];
  for (int thread = 0; thread < threads_; ++thread) {
    const int end = group.rows * (thread + 1) / threads_;
    std::array<Range, kMostLocals> all{};
    std::fill_n(known, kMostLocals, Range());
    for (int row = group.rows * thread / threads_; row < end; row += group.band) {
      find_ranges(group, row, std::min(row + group.band, end), known, made, kept);
      for (size_t i = 0; i < group.locals.size(); ++i) {
        all[i].include(kept[i]);
        int& room = plan_.storages[at(group.locals[i])].rows_room;
        room = std::max(room, std::min(kRoom * kept[i].count(), all[i].count()));
      }
      keep(group, kept, known);
    }
  }
}

}  // namespace espnetv2
