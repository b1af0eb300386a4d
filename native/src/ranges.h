// Which rows of every map a band of a group's rows needs.
#pragma once
#include "plan.h"

namespace espnetv2 {

// The rows that each operation of a group makes so that the last one can make [row, end), if of
// each local storage those of `known` are there. `made` has a place for each operation, `kept` and
// `known` one for each of the group's local storages; what has to be made once more is struck from
// `known`.
void find_ranges(const Group& group, int row, int end, Range* known, Range* made, Range* kept);

// What is known behind the band: where it needed nothing of a storage, what was known before.
void keep(const Group& group, const Range* kept, Range* known);

}  // namespace espnetv2
