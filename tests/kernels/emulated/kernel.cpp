// Behind the text of the kernel KERNEL and warp.h: what driver.cpp calls.

#include <tuple>
#include <utility>

#define QUOTED(name) #name
#define TEXT(name) QUOTED(name)

template <class... Arguments, size_t... places>
bool run_with(void (*kernel)(Arguments...), int blocks, int threads, u32 memory, void** given,
              std::index_sequence<places...>) {
  return emulation::run(blocks, threads, memory,
                        [&] { kernel(*static_cast<Arguments*>(given[places])...); });
}

template <class... Arguments>
bool run_all(void (*kernel)(Arguments...), int blocks, int threads, u32 memory, void** given) {
  return run_with(kernel, blocks, threads, memory, given, std::index_sequence_for<Arguments...>());
}

extern "C" {

const char* name() { return TEXT(KERNEL); }

bool run(int blocks, int threads, u32 memory, void** given) {
  return run_all(KERNEL, blocks, threads, memory, given);
}
}
