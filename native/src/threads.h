// The engine's own threads: they wait awake for a short while, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace espnetv2 {

// As many threads as asked for, the caller's among them.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return count_; }

  // Runs work(0) to work(count - 1) at once and returns when all are done.
  void run(const std::function<void(int)>& work);

  // Inside `run`: returns when all threads have come here; `index` is the caller's.
  void meet(int index);

 private:
  void serve(int index);
  void end();
  template <class Holds>
  void wait(int index, int offers, const Holds& holds);
  void wake();
  void spread(int index);

  const int count_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<unsigned> orders_{0};
  std::atomic<int> busy_{0};
  std::atomic<unsigned> meetings_{0};
  std::atomic<int> arrived_{0};
  std::atomic<bool> ended_{false};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable bell_;
  std::vector<std::atomic<int>> cores_;  // where each thread last woke or began
  std::vector<std::thread> threads_;
};

}  // namespace espnetv2
