// Which steps run together.
#pragma once
#include <string>
#include <vector>

#include "plan.h"

namespace espnetv2 {

// Fills in a plan's groups, and of its storages when they live and which are local.
//
// A step joins the one before it if it needs, of what the group makes, only the rows of its own
// band, or if the maps are so large that bringing them back from memory costs more than making
// twice the few rows where the shares of two threads meet.
void group_steps(const Network& network, Plan& plan, int threads);

}  // namespace espnetv2
