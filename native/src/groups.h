// Which steps run together, and on which rows.
#pragma once
#include <string>
#include <vector>

#include "plan.h"

namespace espnetv2 {

// The tensors that a step reads.
std::vector<Name> reads(const Step& step);

// Fills in a plan's groups, and of its storages when they live and which are local.
//
// A step joins the one before it if it needs, of what the group makes, only the rows of its own
// band, or if the maps are so large that bringing them back from memory costs more than making a
// few of their rows twice.
void group_steps(const Network& network, Plan& plan, int threads);

// The rows that each operation of a group makes so that the last one can make [row, end).
// `made` has a place for each operation, `kept` one for each of the group's local storages.
void find_ranges(const Group& group, int row, int end, Range* made, Range* kept);

}  // namespace espnetv2
