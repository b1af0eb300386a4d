#include "threads.h"

#include <string>
#include <system_error>

#include "error.h"

namespace espnetv2 {

namespace {

constexpr int kLooks = 2000;  // at a flag before sleeping: about as long as one step takes

inline void breathe() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Threads::Threads(int count) : count_(count) {
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
void Threads::wait(const Holds& holds) {
  for (int look = 0; look < kLooks; ++look) {
    if (holds()) return;
    breathe();
  }
  // a core may have been taken by another process: give ours away until it is back
  std::unique_lock<std::mutex> lock(mutex_);
  ++sleepers_;
  bell_.wait(lock, holds);
  --sleepers_;
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
  ++orders_;
  wake();
  work(0);
  wait([this] { return busy_.load() == 0; });
}

void Threads::meet() {
  if (count_ == 1) return;
  const unsigned meeting = meetings_.load();
  if (arrived_.fetch_add(1) == count_ - 1) {
    arrived_ = 0;
    ++meetings_;
    wake();
  } else {
    wait([this, meeting] { return meetings_.load() != meeting; });
  }
}

void Threads::serve(int index) {
  unsigned done = 0;
  for (;;) {
    wait([this, done] { return orders_.load() != done; });
    done = orders_.load();
    if (ended_) return;
    (*work_)(index);
    if (--busy_ == 0) wake();
  }
}

}  // namespace espnetv2
