#include "threads.h"

#include <string>
#include <system_error>

#include "cores.h"
#include "error.h"

namespace espnetv2 {

namespace {

// How often a flag is looked at before sleeping: first with the core kept, then with it offered to
// others; between two runs for as long as a step takes, about 50 us, in a run for about 1 ms.
constexpr int kLooks = 500;
constexpr int kOffersIdle = 100;
constexpr int kOffersAtWork = 2000;

size_t at(int index) { return static_cast<size_t>(index); }

inline void breathe() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Threads::Threads(int count) : count_(count), cores_(at(count)) {
  for (std::atomic<int>& one : cores_) one = -1;
  try {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this, i] { serve(i); });
  } catch (const std::system_error&) {
    end();
    throw Error("the system gives no more than " + std::to_string(threads_.size()) + " threads");
  }
}

Threads::~Threads() { end(); }

void Threads::end() {
  ended_ = true;
  ++orders_;
  wake();
  for (std::thread& thread : threads_) thread.join();
}

template <class Holds>
void Threads::wait(int index, int offers, const Holds& holds) {
  for (int look = 0; look < kLooks; ++look) {
    if (holds()) return;
    breathe();
  }
  for (int offer = 0; offer < offers; ++offer) {
    std::this_thread::yield();
    if (holds()) return;
  }
  // a core may have been taken by another process: give ours away until it is back
  std::unique_lock<std::mutex> lock(mutex_);
  ++sleepers_;
  bell_.wait(lock, holds);
  --sleepers_;
  lock.unlock();
  spread(index);
}

// Linux likes to wake a thread on the core of the one that rings, and in a virtual machine it takes
// an idle core for one that is not to be had. Two threads on one core wait for each other at every
// meeting: several times the time of one. The caller's thread is never moved.
void Threads::spread(int index) {
  const int here = core();
  cores_[at(index)] = here;
  if (here < 0) return;
  for (int other = 0; other < index; ++other) {
    if (cores_[at(other)] == here) {
      leave(cores_);
      cores_[at(index)] = core();
      return;
    }
  }
}

void Threads::wake() {
  // sequentially consistent with `sleepers_`: who sees no sleeper is seen by the one to come
  if (sleepers_.load() == 0) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
  }
  bell_.notify_all();
}

void Threads::run(const std::function<void(int)>& work) {
  if (count_ == 1) {
    work(0);
    return;
  }
  work_ = &work;
  busy_ = count_ - 1;
  spread(0);
  ++orders_;
  wake();
  work(0);
  wait(0, kOffersAtWork, [this] { return busy_.load() == 0; });
}

void Threads::meet(int index) {
  if (count_ == 1) return;
  const unsigned meeting = meetings_.load();
  if (arrived_.fetch_add(1) == count_ - 1) {
    arrived_ = 0;
    ++meetings_;
    wake();
  } else {
    wait(index, kOffersAtWork, [this, meeting] { return meetings_.load() != meeting; });
  }
}

void Threads::serve(int index) {
  unsigned done = 0;
  for (;;) {
    wait(index, kOffersIdle, [this, done] { return orders_.load() != done; });
    done = orders_.load();
    if (ended_) return;
    spread(index);
    (*work_)(index);
    if (--busy_ == 0) wake();
  }
}

}  // namespace espnetv2
