#include "ranges.h"

#include <algorithm>

namespace espnetv2 {

namespace {

// Rows [row, end) of a step, as rows of what it reads.
Range needed(const Operation& operation, const Operation::Read& read, Range rows) {
  if (!read.around) return rows;
  if (read.windows) {
    return {operation.rows_at[static_cast<size_t>(2 * rows.first)],
            operation.rows_at[static_cast<size_t>(2 * rows.end - 1)] + read.inclusive};
  }
  return {rows.first * read.stride - read.reach, (rows.end - 1) * read.stride + read.reach + 1};
}

// False where a band would need rows that are gone: `known` has forgotten the map then.
bool found_ranges(const Group& group, int row, int end, Range* known, Range* made, Range* kept) {
  for (size_t i = 0; i < group.locals.size(); ++i) kept[i] = {};
  for (size_t i = group.operations.size(); i-- > 0;) {
    const Operation& operation = group.operations[i];
    if (operation.local < 0) {
      // exactly this band's share, so that no two bands write the same row
      made[i] = {static_cast<int>(static_cast<int64_t>(row) * operation.rows / group.rows),
                 static_cast<int>(static_cast<int64_t>(end) * operation.rows / group.rows)};
    } else {
      Range& all = kept[operation.local];
      Range& before = known[operation.local];
      if (all.count() > 0 && before.count() > 0) {
        if (all.first < before.first) {
          before = {};
          return false;
        }
        all.end = std::max(all.end, before.end);
      }
      made[i] = {std::max({all.first, before.end, 0}), std::min(all.end, operation.rows)};
    }
    if (made[i].count() <= 0) continue;
    for (const Operation::Read& read : operation.reads) {
      if (read.local >= 0) kept[read.local].include(needed(operation, read, made[i]));
    }
  }
  return true;
}

}  // namespace

void find_ranges(const Group& group, int row, int end, Range* known, Range* made, Range* kept) {
  while (!found_ranges(group, row, end, known, made, kept)) {
  }
}

void keep(const Group& group, const Range* kept, Range* known) {
  for (size_t i = 0; i < group.locals.size(); ++i) {
    if (kept[i].count() > 0) known[i] = kept[i];
  }
}

}  // namespace espnetv2
