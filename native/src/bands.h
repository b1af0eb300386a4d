// The band scheduler: runs a plan's groups, each thread on its share of the rows, a band at a
// time, so that what one step makes is still near when the next one reads it.
#pragma once
#include "maps.h"

namespace espnetv2 {

// One thread's part of a whole run; all threads must be in here at once. The first one writes
// how long each group took where `milliseconds` is not null.
void run_groups(const Model& model, const Plan& plan, Threads& threads, int thread,
                const Memory& memory, double* milliseconds = nullptr);

}  // namespace espnetv2
