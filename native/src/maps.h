// Where the maps of a run lie: what both the band scheduler and the outputs need to know.
#pragma once
#include <array>
#include <vector>

#include "engine.h"

namespace espnetv2 {

// What a run works on.
struct Memory {
  char* arena;
  const float* image;
  const std::vector<Result>* results;
  uint8_t* result_bytes;
};

// A map's pixel (row 0, column 0) in its first block, and its distances in values.
struct View {
  char* at;
  Index row, block;
  int value;  // bytes

  // So many values further.
  char* move(Index values) const { return at + values * value; }
};

// One thread's view of the maps, of the image and the band that it works on.
class Maps {
 public:
  Maps(const Model& model, const Plan& plan, int thread, const Memory& memory)
      : network(model.network()),
        kernels(model.kernels()),
        plan(plan),
        thread(thread),
        memory(memory) {}

  const Network& network;
  const Kernels& kernels;
  const Plan& plan;
  const int thread;
  const Memory& memory;
  int image = 0;
  std::array<Range, 64> kept;  // rows of this band: of local storages
  std::array<int, 64> top{};   // the row that lies where their rooms begin

  static size_t at(Name name) { return static_cast<size_t>(name); }

  const Storage& storage(Name name) const { return plan.storages[at(plan.storage_of[at(name)])]; }
  int blocks(Name name) const { return network.places[at(name)].blocks; }
  int channels(Name name) const { return network.program.tensors[at(name)].channels; }
  const int32_t* lanes_of(Name name) const { return network.places[at(name)].lane.data(); }

  // In the arena, or behind it in this thread's band.
  char* arena(Index values) const { return memory.arena + values * plan.value; }

  // Of a local storage: where this thread's rows of it begin.
  char* start(const Storage& s) const { return arena(s.start + plan.arena + plan.band * thread); }

  View view(Name name) const {
    const Storage& s = storage(name);
    const Place& place = network.places[at(name)];
    Index own = s.origin + place.block * s.block, start = s.start;
    if (s.local) {
      start += plan.arena + plan.band * thread;
      own -= s.row * top[at(s.local_place)];
    } else {
      own += s.image * image;
    }
    return {arena(start) + own * s.value, s.row, s.block, s.value};
  }

  // Where a kernel writes what only itself reads: rows that are rounded to bytes, or planes.
  void* room() const { return arena(plan.arena + plan.band * thread + plan.room); }

  // Floats that this thread may use while nothing else in its band is needed.
  float* scratch() const {
    return reinterpret_cast<float*>(arena(plan.arena + plan.band * thread));
  }
};

}  // namespace espnetv2
