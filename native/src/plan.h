// What is decided once the size of the picture is known: the size of every map, where it lies in
// memory, and which steps run together on a band of rows.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "channels.h"
#include "detections.h"
#include "pack.h"
#include "program.h"

namespace espnetv2 {

// Rows, from the first to the one behind the last.
struct Range {
  int first = 0, end = 0;

  int count() const { return end - first; }
  void include(const Range& other) {
    if (count() <= 0) {
      *this = other;
    } else {
      first = first < other.first ? first : other.first;
      end = end > other.end ? end : other.end;
    }
  }
};

// A map in memory: [row][block][column][lane] with a border of zeros as wide as its readers reach,
// so that no loop has an edge case. Small maps that nobody reaches beyond are flat, [block][row]
// [column][lane], so that a 1x1 convolution takes all of their pixels as one row. The image is
// [row][channel][column], and so are other maps that lie plane by plane: of floats, with room for
// whole vectors in each row.
struct Storage {
  int blocks = 0, lanes = 0;
  int height = 0, width = 0, border = 0;
  int left = 0;                       // pixels before the first one of a row: the border at least
  int value = 4;                      // bytes
  const Step* rounded_for = nullptr;  // the convolution that reads it, where values are bytes
  Index odd = 0;  // of planes: from a row's even pixels to its odd ones; 0 in natural order
  bool flat = false;
  Index row = 0, block = 0;   // distance of neighbours, in values
  Index image = 0;            // of the images of a batch
  Index start = 0;            // in the arena or in a thread's band, counted in their values
  Index origin = 0;           // of the first pixel, from there on
  int first = -1, last = -1;  // group that writes it first, and reads it last
  bool local = false;         // lives within one group: each thread keeps some rows of it
  int local_place = -1;       // in that group's `locals`
  int rows_room = 0;          // of it
};

// One step at its size.
struct Operation {
  enum class Kind { import, step, output };
  enum class Split { rows, parts };  // what threads share: rows, or tiles and blocks

  // Which rows of an input it needs.
  struct Read {
    Name storage = kNone;
    int local = -1;             // its place among the group's locals
    bool around = false;        // needs other rows than its own:
    bool windows = false;       // those that `rows_at` says,
    bool inclusive = false;     // with the second of a pair,
    int stride = 1, reach = 0;  // or those around
  };

  Kind kind = Kind::step;
  const Step* step = nullptr;
  const Output* output = nullptr;
  size_t output_part = 0;  // which of the output's tensors
  Name in = kNone, out = kNone;
  std::vector<Read> reads;
  int local = -1;  // the result's place among the group's locals
  Split split = Split::rows;
  int rows = 0, parts = 0;
  bool merged = false;  // a 1x1 convolution over all pixels of a flat map
  const std::vector<Packed>* packed = nullptr;
  std::vector<int32_t> offsets;              // of reach, or of a gather
  std::vector<int32_t> places;               // of merged pixels in a map with a border
  std::vector<int32_t> rows_at, columns_at;  // of resizing and pooling
  std::vector<float> row_weights, column_weights;
  int even = 0, even_end = 0;   // see `RescaleArgs`
  std::vector<int32_t> counts;  // of a gather: input blocks of each output block
};

// Operations between two meetings of the threads.
struct Group {
  std::vector<Operation> operations;
  std::vector<Name> locals;  // storages that only this group knows
  int rows = 0;              // of the last operation, which are shared; 0 where parts are
  int band = 0;              // rows at a time
  std::string name;          // what it makes, for who measures
};

struct Plan {
  int batch = 0, height = 0, width = 0;
  std::vector<Storage> storages;     // by the tensor that owns it
  std::vector<Name> storage_of;      // of each tensor
  std::map<Name, Name> dropped;      // copies that are not made, and what they are names of
  std::vector<int> heights, widths;  // of each tensor
  std::vector<Group> groups;
  std::vector<DetectionPlan> detections;  // of each output; empty where it gives no boxes
  Index arena = 0;                        // values that all threads share
  Index band = 0;                         // values that each thread has
  Index room = 0;                         // where in those its room begins; see `Maps::room`
  int value = 4;                          // bytes of those

  // With room behind the end, because tiles of a fixed width read beyond that of a map.
  size_t bytes(int threads) const {
    return static_cast<size_t>((arena + band * threads) * value) + 32 * kCacheLine;
  }
  Index values_of(Index floats) const { return floats * 4 / value; }
  Index values_of(Index own, const Storage& s) const { return own * s.value / value; }
};

// Whether a step only names what is there already.
inline bool costs_nothing(const Plan& plan, const Step& step) {
  return step.kind == Step::Kind::concat || step.kind == Step::Kind::shuffle ||
         plan.dropped.count(step.out);
}

// What stays the same for all sizes.
struct Network {
  Program program;
  std::vector<Place> places;
  std::vector<std::vector<Packed>> packed;  // of each step
  Weights weights;
  int lanes = 0;
  int value = 4;  // bytes of a map's value
};

// Bytes of a pixel of an operation whose input is rounded to bytes.
inline Index bytes_step(const Operation& operation, int lanes) {
  const auto channels = static_cast<Index>(operation.packed->at(0).reach.size()) * lanes;
  return (channels + 63) / 64 * 64;
}

// Raises Error where the picture is too small or too large for the network.
Plan make_plan(const Network& network, int batch, int height, int width, int threads);

}  // namespace espnetv2
