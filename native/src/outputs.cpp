#include "outputs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "geometry.h"

namespace espnetv2 {

namespace {

void softmax(const Kernels& kernels, float* values, int count) {
  kernels.exponentials(values, count, *std::max_element(values, values + count));
  const float total = std::accumulate(values, values + count, 0.0f);
  for (int c = 0; c < count; ++c) values[c] /= total;
}

// Of halves; null where the map holds floats.
NumberOfHalf numbers_of(const Kernels& kernels, const Storage& s) {
  return s.value == sizeof(float) ? nullptr : kernels.number;
}

void sigmoid(float* values, int count) {
  for (int c = 0; c < count; ++c) values[c] = 1 / (1 + std::exp(-values[c]));
}

}  // namespace

void Outputs::give(const Operation& operation, int row, int end) const {
  const Output& output = *operation.output;
  if (output.form == Output::Form::boxes) {
    boxes(operation, row, end);
  } else if (output.enlarged) {
    enlarge(operation, given(operation, 0), row, end);
  } else {
    auto* to = reinterpret_cast<float*>(given(operation, 0));
    copy(operation, to, row, end);
    if (output.form == Output::Form::probabilities) {
      output.multi_label ? sigmoid(to, maps_.channels(operation.in))
                         : softmax(maps_.kernels, to, maps_.channels(operation.in));
    }
  }
}

size_t Outputs::number(const Output& output) const {
  return static_cast<size_t>(&output - maps_.network.program.outputs.data());
}

// Where this image's part of a result lies; boxes give three.
uint8_t* Outputs::given(const Operation& operation, size_t which) const {
  for (size_t i = 0; i < number(*operation.output); ++i) {
    which += maps_.network.program.outputs[i].form == Output::Form::boxes ? 3 : 1;
  }
  const Result& result = maps_.memory.results->at(which);
  return maps_.memory.result_bytes + result.start + result.size / maps_.plan.batch * maps_.image;
}

// Channels from their lanes to where the caller expects them.
void Outputs::copy(const Operation& operation, float* to, int row, int end) const {
  const Storage& s = maps_.storage(operation.in);
  const View in = maps_.view(operation.in);
  const Head values{in.at, numbers_of(maps_.kernels, s)};
  const int channels = maps_.channels(operation.in);
  const bool places = operation.output->form == Output::Form::places;
  Index before = 0;
  for (size_t part = 0; part < operation.output_part; ++part) {
    const Name name = operation.output->tensors[part];
    const size_t at = Maps::at(name);
    before +=
        static_cast<Index>(maps_.plan.heights[at]) * maps_.plan.widths[at] * maps_.channels(name);
  }
  const auto plane = static_cast<Index>(s.height) * s.width;
  for (int y = row; y < end; ++y) {
    for (int c = 0; c < channels; ++c) {
      const int lane = maps_.lanes_of(operation.in)[c];
      const Index from = y * in.row + lane / s.lanes * in.block + lane % s.lanes;
      const Index first = static_cast<Index>(y) * s.width;
      for (int x = 0; x < s.width; ++x) {
        const Index place = places ? before + (first + x) * channels + c : c * plane + first + x;
        to[place] = values.value(from + static_cast<Index>(x) * s.lanes);
      }
    }
  }
}

void Outputs::enlarge(const Operation& operation, uint8_t* to, int row, int end) const {
  const View in = maps_.view(operation.in);
  const Storage& from = maps_.storage(operation.in);
  PlanesArgs a{};
  a.x = in.at;
  a.x_row = in.row;
  a.x_block = in.block;
  a.x_blocks = maps_.blocks(operation.in);
  a.x_width = from.width;
  a.x_wide = from.value == sizeof(float);
  a.lanes = maps_.lanes_of(operation.in);
  a.classes = maps_.channels(operation.in);
  a.rows = operation.rows_at.data();
  a.row_weights = operation.row_weights.data();
  a.firsts = operation.columns_at.data();
  a.picks = operation.offsets.data();
  a.column_weights = operation.column_weights.data();
  a.scratch = static_cast<float*>(maps_.room());
  a.plane = static_cast<Index>(maps_.plan.height) * maps_.plan.width;
  const bool whole = operation.output->form == Output::Form::map;
  a.planes = whole ? reinterpret_cast<float*>(to) : nullptr;
  a.largest = whole ? nullptr : to;
  a.width = maps_.plan.width;
  a.row = row;
  a.row_end = end;
  maps_.kernels.planes(a);
}

void Outputs::boxes(const Operation& operation, int row, int end) const {
  const DetectionPlan& plan = maps_.plan.detections[number(*operation.output)];
  const Index start = plan.start + maps_.plan.values_of(plan.image * maps_.image);
  const Detections found(plan, reinterpret_cast<float*>(maps_.arena(start)));
  const int32_t* channels = operation.offsets.data();
  const auto head = [&](Name name, const int32_t* channels) {
    const View map = maps_.view(name);
    const Storage& s = maps_.storage(name);
    return Head{map.at, numbers_of(maps_.kernels, s), map.row, s.lanes, s.width, channels};
  };
  if (operation.output_part < kLevels) {
    found.score(maps_.kernels, head(operation.in, channels), operation.output_part, row, end,
                maps_.scratch());
  } else if (operation.output_part == kLevels) {
    std::array<Head, kLevels> offsets;
    for (size_t level = 0; level < kLevels; ++level) {
      const auto distance = static_cast<Index>(4 * kPriorsOfCell * level);
      offsets[level] = head(operation.output->tensors[level + kLevels], channels + distance);
    }
    for (int label = row; label < end; ++label) found.suppress(offsets, label, maps_.scratch());
  } else {
    found.give(reinterpret_cast<float*>(given(operation, 0)),
               reinterpret_cast<float*>(given(operation, 1)),
               reinterpret_cast<int64_t*>(given(operation, 2)), maps_.scratch());
  }
}

}  // namespace espnetv2
