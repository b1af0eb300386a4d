#include "cores.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace espnetv2 {

#if defined(__linux__)

int core() { return sched_getcpu(); }

void leave(const std::vector<std::atomic<int>>& taken) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t free = allowed;
  for (const std::atomic<int>& one : taken) {
    if (one.load() >= 0) CPU_CLR(one.load(), &free);
  }
  if (CPU_COUNT(&free) == 0) return;
  if (sched_setaffinity(0, sizeof free, &free) == 0) {
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
}

#else

int core() { return -1; }
void leave(const std::vector<std::atomic<int>>&) {}

#endif

}  // namespace espnetv2
