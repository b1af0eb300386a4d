#include "instruction_sets.h"

#include <cstdlib>

#include "error.h"

namespace espnetv2 {

std::vector<const Kernels*> usable_kernels() {
  std::vector<const Kernels*> found;
#if defined(ESPNETV2_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    found.push_back(avx512_kernels());
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(avx2_kernels());
  }
#elif defined(ESPNETV2_NEON)
  found.push_back(neon_kernels());
#endif
  found.push_back(plain_kernels());
  return found;
}

const Kernels& best_kernels() {
  const std::vector<const Kernels*> usable = usable_kernels();
  const char* wanted = std::getenv("ESPNETV2_NATIVE_ISA");
  if (!wanted || !*wanted) return *usable.front();
  std::string names;
  for (const Kernels* kernels : usable) {
    if (std::string(wanted) == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  throw Error("ESPNETV2_NATIVE_ISA is '" + std::string(wanted) + "'; this processor has " + names);
}

}  // namespace espnetv2
