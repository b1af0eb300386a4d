// Which rows of every map a band of a group's rows needs.
#pragma once
#include "plan.h"

namespace espnetv2 {

// The rows that each operation of a group makes so that the last one can make [row, end).
// `made` has a place for each operation, `kept` one for each of the group's local storages.
void find_ranges(const Group& group, int row, int end, Range* made, Range* kept);

}  // namespace espnetv2
