// The driver's interface to kernels that are shared libraries for this processor: an image is the
// path of one. Threads begin without a context, as the driver's do.

#include <dlfcn.h>

namespace {

int primary;
thread_local void* current = nullptr;

}  // namespace

extern "C" {

int cuCtxGetCurrent(void** context) {
  *context = current;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = &primary;
  return device == 0 ? 0 : 101;  // CUDA_ERROR_INVALID_DEVICE
}

int cuCtxSetCurrent(void* context) {
  current = context;
  return 0;
}

int cuModuleLoadData(void** module, const char* path) {
  if (current == nullptr) return 201;  // CUDA_ERROR_INVALID_CONTEXT
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *module == nullptr ? 200 : 0;  // CUDA_ERROR_INVALID_IMAGE
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  using Name = const char* (*)();
  const auto named = reinterpret_cast<Name>(dlsym(module, "name"));
  *function = __builtin_strcmp(named(), name) == 0 ? dlsym(module, "run") : nullptr;
  return *function == nullptr ? 500 : 0;  // CUDA_ERROR_NOT_FOUND
}

int cuFuncSetAttribute(void* function, int attribute, int value) {
  const bool fits = function != nullptr && attribute == 8 && value <= 99 * 1024;
  return fits ? 0 : 1;  // CUDA_ERROR_INVALID_VALUE
}

int cuLaunchKernel(void* function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned,
                   unsigned, unsigned shared, void*, void** arguments, void**) {
  if (current == nullptr) return 201;  // CUDA_ERROR_INVALID_CONTEXT
  using Run = bool (*)(int, int, unsigned, void**);
  const auto run = reinterpret_cast<Run>(function);
  const bool fine = run(static_cast<int>(blocks), static_cast<int>(threads), shared, arguments);
  return fine ? 0 : 719;  // CUDA_ERROR_LAUNCH_FAILED
}
}
