#include "instruction_sets.h"

#include <cstdlib>

#include "error.h"

#if defined(ESPNETV2_X86)
#include <cpuid.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif
#elif defined(ESPNETV2_NEON)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace espnetv2 {

#if defined(ESPNETV2_X86)
namespace {

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// A bit of the processor's answer about its features; register 0 is EAX, 3 is EDX.
bool feature(unsigned subleaf, int which, int bit) {
  unsigned registers[4] = {};
  if (!__get_cpuid_count(7, subleaf, &registers[0], &registers[1], &registers[2], &registers[3])) {
    return false;
  }
  return registers[which] >> bit & 1;
}

bool has_avx512_vnni() { return has_avx512() && feature(0, 2, 11); }

bool has_avx512_bf16() { return has_avx512() && feature(1, 0, 5); }

// The system gives a process the room for tiles on demand; processes that it starts inherit that.
bool has_amx() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;
  return feature(0, 3, 22) && feature(0, 3, 24) && feature(0, 3, 25) &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace
#elif defined(ESPNETV2_NEON)
namespace {

#if defined(__linux__)

// Linux's names of these bits; headers of older systems lack some.
constexpr unsigned long kAsimdHp = 1 << 10, kAsimdDp = 1 << 20, kBf16 = 1 << 14;

bool has_dot_product() { return getauxval(AT_HWCAP) & kAsimdDp; }

bool has_bf16() { return getauxval(AT_HWCAP2) & kBf16; }

bool has_fp16() { return getauxval(AT_HWCAP) & kAsimdHp; }

#elif defined(__APPLE__)

bool feature(const char* name) {
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname(name, &found, &size, nullptr, 0) == 0 && found != 0;
}

bool has_dot_product() { return feature("hw.optional.arm.FEAT_DotProd"); }

bool has_bf16() { return feature("hw.optional.arm.FEAT_BF16"); }

bool has_fp16() { return feature("hw.optional.arm.FEAT_FP16"); }

#else

bool has_dot_product() { return false; }

bool has_bf16() { return false; }

bool has_fp16() { return false; }

#endif

}  // namespace
#endif

std::vector<const Kernels*> usable_kernels(Precision precision, [[maybe_unused]] bool small) {
  std::vector<const Kernels*> found;
  const bool half = precision == Precision::halves;
  [[maybe_unused]] const bool bytes = precision == Precision::bytes;
#if defined(ESPNETV2_X86)
  __builtin_cpu_init();
  if (precision != Precision::floats && has_avx512_bf16() && has_amx()) {
    found.push_back(amx_kernels());
  }
  if (half && has_avx512_bf16()) found.push_back(avx512_half_kernels());
  if (bytes && has_avx512_vnni() && has_avx512_bf16()) {
    found.push_back(avx512_bytes_half_kernels());
  }
  if (bytes && has_avx512_vnni()) found.push_back(avx512_bytes_kernels());
  if (!half && has_avx512()) found.push_back(avx512_kernels());
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    found.push_back(half ? avx2_half_kernels() : avx2_kernels());
  }
#elif defined(ESPNETV2_NEON)
  if (half && has_bf16()) found.push_back(neon_bf16_kernels());
  if (half && small && has_fp16()) found.push_back(neon_fp16_kernels());
  if (bytes && has_dot_product() && has_bf16()) found.push_back(neon_bytes_bf16_kernels());
  if (bytes && small && has_dot_product() && has_fp16()) {
    found.push_back(neon_bytes_fp16_kernels());
  }
  if (bytes && has_dot_product()) found.push_back(neon_bytes_kernels());
  found.push_back(half ? neon_half_kernels() : neon_kernels());
#endif
  found.push_back(half ? plain_half_kernels() : plain_kernels());
  return found;
}

const Kernels& best_kernels(Precision precision, bool small) {
  const std::vector<const Kernels*> usable = usable_kernels(precision, small);
  const char* wanted = std::getenv("ESPNETV2_NATIVE_ISA");
  if (!wanted || !*wanted) return *usable.front();
  std::string names;
  for (const Kernels* kernels : usable) {
    if (std::string(wanted) == kernels->name) return *kernels;
    names += (names.empty() ? "" : ", ") + std::string(kernels->name);
  }
  constexpr const char* kFor[] = {"", " for bf16", " for int8"};
  throw Error("ESPNETV2_NATIVE_ISA is '" + std::string(wanted) + "'; this processor has " + names +
              kFor[static_cast<size_t>(precision)]);
}

}  // namespace espnetv2
