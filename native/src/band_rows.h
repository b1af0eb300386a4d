// How many rows of a group run at a time: as many as caches hold.
#pragma once
#include "plan.h"

namespace espnetv2 {

constexpr int kMostLocals = 48, kMostOperations = 48;  // of a group

class BandRows {
 public:
  BandRows(const Network& network, Plan& plan, int threads)
      : network_(network), plan_(plan), threads_(threads) {}

  // Sets a group's band; gives whether its fewest rows fit the caches.
  bool choose(Group& group);

  // All work of a thread's share, over what it would be if no row were made by two threads.
  double waste(const Group& group) const;

 private:
  const Storage& storage(Name name) const;
  Index touched(const Group& group, int band) const;     // floats
  double work_of_row(const Operation& operation) const;  // in vector operations, about
  void keep_rows(const Group& group);  // the most that a band keeps, of each local storage

  const Network& network_;
  Plan& plan_;
  const int threads_;
};

}  // namespace espnetv2
