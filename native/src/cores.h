// Which core a thread runs on.
#pragma once
#include <atomic>
#include <vector>

namespace espnetv2 {

// The core that runs the caller; -1 where the system does not say.
int core();

// Moves the caller to a core that is not taken, of those where it may run; it may go on wherever it
// could before. Without such a core it stays.
void leave(const std::vector<std::atomic<int>>& taken);

}  // namespace espnetv2
