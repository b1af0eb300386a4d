// The words of kernels/warp.cuh for a processor. Each thread of a block is a fibre, which runs until
// all of its warp, or of its block, have come as far. Shared memory begins as NaN, and a copy
// arrives when it is waited for. Where one thread writes what another one touches with no barrier
// between, the launch fails.

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

using std::max;
using std::min;
using u32 = uint32_t;
using u16 = uint16_t;

struct alignas(16) Chunk {
  u32 part[4];
};

#define DEVICE inline
#define __device__
#define __global__
#define __launch_bounds__(threads)

namespace emulation {

struct Copy {
  u32 to;
  Chunk value;
  int group;
};

// Who last wrote four bytes, who last read them (kMany: several did), and after how many barriers.
struct Word {
  int writer = -1, written = -1, reader = -1, seen = -1;
};
constexpr int kMany = -2;

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  std::vector<Copy> copies;
  int groups = 0;
  bool ended = false;
  const void* operand = nullptr;
};

// Where threads wait for each other.
struct Meeting {
  int come = 0;
  long times = 0;
};

struct Block {
  int number, threads;
  std::vector<Fibre> fibres;
  std::vector<Meeting> meetings;  // of each warp, and last of the block
  std::vector<char> memory;
  std::vector<Word> words;
  int current = 0, barriers = 0;
  bool failed = false;
  ucontext_t home;
};
inline Block* now;

[[noreturn]] inline void fail(const char* what, u32 where) {
  std::fprintf(stderr, "block %d, thread %d: %s at %u\n", now->number, now->current, what, where);
  now->failed = true;
  setcontext(&now->home);
  __builtin_unreachable();
}

// Lets the next thread run that has not ended.
inline void pass_on() {
  Block& b = *now;
  const int from = b.current;
  for (int step = 1; step < b.threads; ++step) {
    const int to = (from + step) % b.threads;
    if (b.fibres[to].ended) continue;
    b.current = to;
    swapcontext(&b.fibres[from].context, &b.fibres[to].context);
    return;
  }
  fail("waits for threads that have ended", 0);
}

// Waits until `threads` have come; the last one does `what` for all.
template <class What>
void together(Meeting& meeting, int threads, What what) {
  const long time = meeting.times;
  if (++meeting.come == threads) {
    what();
    meeting.come = 0;
    ++meeting.times;
  }
  while (meeting.times == time) pass_on();
}

inline char* place(u32 from, u32 bytes, bool writes, int thread) {
  Block& b = *now;
  if (from % bytes != 0 || from + bytes > b.memory.size()) fail("no such place", from);
  for (u32 w = from / 4; w < (from + bytes) / 4; ++w) {
    Word& word = b.words[w];
    const bool before = word.written == b.barriers && word.writer != thread;
    const bool beside = word.seen == b.barriers && word.reader != thread;
    if (before || (writes && beside)) fail("a race", from);
    if (writes) {
      word.writer = thread, word.written = b.barriers;
    } else {
      word.reader = beside ? kMany : thread, word.seen = b.barriers;
    }
  }
  return b.memory.data() + from;
}

// An operation of a warp, whose last thread does `what` with all operands.
template <class Operand, class What>
void warp(const Operand& mine, What what) {
  Block& b = *now;
  const int first = b.current / 32 * 32;
  b.fibres[b.current].operand = &mine;
  together(b.meetings[b.current / 32], 32, [&] {
    what(first, [&](int lane) -> const Operand& {
      return *static_cast<const Operand*>(b.fibres[first + lane].operand);
    });
  });
}

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Runs `kernel` in every thread of every block; false where that failed.
template <class Kernel>
bool run(int blocks, int threads, u32 memory, Kernel kernel) {
  static Kernel* body;
  body = &kernel;
  constexpr size_t kStack = 1 << 16;
  for (int number = 0; number < blocks; ++number) {
    Block b;
    now = &b;
    b.number = number, b.threads = threads;
    b.fibres = std::vector<Fibre>(threads);
    b.meetings.resize(threads / 32 + 1);
    b.memory.assign(memory, static_cast<char>(0xff));
    b.words.resize(memory / 4);
    for (Fibre& fibre : b.fibres) {
      fibre.stack.reset(new char[kStack]);
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack.get();
      fibre.context.uc_stack.ss_size = kStack;
      fibre.context.uc_link = nullptr;
      auto start = +[] {
        (*body)();
        Block& b = *now;
        b.fibres[b.current].ended = true;
        for (const Fibre& other : b.fibres)
          if (!other.ended) pass_on();
        setcontext(&b.home);
      };
      makecontext(&fibre.context, start, 0);
    }
    swapcontext(&b.home, &b.fibres[0].context);
    if (b.failed) return false;
  }
  return true;
}

}  // namespace emulation

inline int thread() { return emulation::now->current; }
inline int block() { return emulation::now->number; }
inline u32 shared() { return 0; }

inline void barrier() {
  emulation::Block& b = *emulation::now;
  emulation::together(b.meetings.back(), b.threads, [&] { ++b.barriers; });
}

inline void meet() {
  emulation::warp(0, [](int, auto) {});
}

template <class Value>
Value read_value(u32 from) {
  Value value;
  std::memcpy(&value, emulation::place(from, sizeof value, false, thread()), sizeof value);
  return value;
}

template <class Value>
void write_value(u32 to, Value value) {
  std::memcpy(emulation::place(to, sizeof value, true, thread()), &value, sizeof value);
}

inline Chunk read(u32 from) { return read_value<Chunk>(from); }
inline void write(u32 to, Chunk value) { write_value(to, value); }
inline void write_two(u32 to, u32 value) { write_value(to, value); }
inline float read_float(u32 from) { return read_value<float>(from); }
inline void write_float(u32 to, float value) { write_value(to, value); }

inline void copy(u32 to, const void* from) {
  auto& mine = emulation::now->fibres[thread()];
  if (reinterpret_cast<uintptr_t>(from) % sizeof(Chunk) != 0) emulation::fail("an odd source", to);
  emulation::Copy one{to, {}, mine.groups};
  std::memcpy(&one.value, from, sizeof(Chunk));
  mine.copies.push_back(one);
  std::memset(emulation::place(to, sizeof(Chunk), true, thread()), 0xff, sizeof(Chunk));
}

inline void group() { ++emulation::now->fibres[thread()].groups; }

template <int N>
void arrived() {
  auto& mine = emulation::now->fibres[thread()];
  std::vector<emulation::Copy> later;
  for (const auto& one : mine.copies) {
    if (one.group >= mine.groups - N) {
      later.push_back(one);
    } else {
      write(one.to, one.value);
    }
  }
  mine.copies = later;
}

struct Rows {
  u32* into;
  u32 row;
};

inline void take(u32* into, u32 row, int count, bool turned) {
  emulation::warp(Rows{into, row}, [&](int first, auto of) {
    for (int which = 0; which < count; ++which) {
      u16 matrix[8][8];
      for (int r = 0; r < 8; ++r) {
        const int lane = 8 * which + r;
        std::memcpy(matrix[r], emulation::place(of(lane).row, 16, false, first + lane), 16);
      }
      for (int lane = 0; lane < 32; ++lane) {
        const int a = lane / 4, b = lane % 4 * 2;
        const u32 low = turned ? matrix[b][a] : matrix[a][b];
        const u32 high = turned ? matrix[b + 1][a] : matrix[a][b + 1];
        of(lane).into[which] = low | high << 16;
      }
    }
  });
}

inline void matrices(u32 (&into)[4], u32 row) { take(into, row, 4, false); }
inline void matrices(u32 (&into)[2], u32 row) { take(into, row, 2, false); }
inline void transposed(u32 (&into)[4], u32 row) { take(into, row, 4, true); }
inline void transposed(u32 (&into)[2], u32 row) { take(into, row, 2, true); }

#if FLOAT16
inline float low(u32 both) { return emulation::bits<_Float16>(static_cast<u16>(both)); }
inline u32 half_of(float f) { return emulation::bits<u16>(static_cast<_Float16>(f)); }
#else
inline float low(u32 both) { return emulation::bits<float>(both << 16); }
inline u32 half_of(float f) {  // to the nearest, of two the even one
  const u32 all = emulation::bits<u32>(f);
  return f != f ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16;
}
#endif
inline float high(u32 both) { return low(both >> 16); }
inline u32 halves(float low, float high) { return half_of(low) | half_of(high) << 16; }

struct Factors {
  float* sums;
  const u32 *a, *b;
};

inline void multiply(float* sums, const u32* a, const u32* b, int depth) {
  emulation::warp(Factors{sums, a, b}, [&](int, auto of) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      for (int q = 0; q < depth / 4; ++q) {
        left[row + q % 2 * 8][column + q / 2 * 8] = low(of(lane).a[q]);
        left[row + q % 2 * 8][column + q / 2 * 8 + 1] = high(of(lane).a[q]);
      }
      for (int q = 0; q < depth / 8; ++q) {
        right[column + q * 8][row] = low(of(lane).b[q]);
        right[column + q * 8 + 1][row] = high(of(lane).b[q]);
      }
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 4; ++e)
        for (int k = 0; k < depth; ++k)
          of(lane).sums[e] += left[lane / 4 + e / 2 * 8][k] * right[k][lane % 4 * 2 + e % 2];
  });
}

inline void add_product(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  const u32 a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
  multiply(d, a, b, 16);
}

inline void add_product(float (&d)[4], u32 a0, u32 a1, u32 b0) {
  const u32 a[2] = {a0, a1}, b[1] = {b0};
  multiply(d, a, b, 8);
}
