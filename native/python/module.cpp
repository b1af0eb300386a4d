// The Python module: a thin layer over the C API.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "espnetv2.h"

namespace nb = nanobind;

namespace {

using Image = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Pixels = nb::ndarray<const uint8_t, nb::ndim<3>, nb::device::cpu>;
using Loaded = std::shared_ptr<espnetv2_model>;

// The message of a failed call becomes a ValueError.
struct Message {
  char text[512] = "";
  template <class Pointer>
  Pointer checked(Pointer found) const {
    if (!found) throw nb::value_error(text);
    return found;
  }
};

// Rows of a picture may lie apart, but not its pixels.
size_t stride_of(const Pixels& rgb) {
  const bool fits = rgb.shape(2) == 3 && rgb.stride(2) == 1 && rgb.stride(1) == 3 &&
                    rgb.stride(0) >= 0 && rgb.shape(0) <= 32768 && rgb.shape(1) <= 32768;
  if (!fits) {
    throw nb::value_error(
        "a picture must be bytes of shape (height, width, 3), pixel by pixel, "
        "of at most 32768 a side");
  }
  return static_cast<size_t>(rgb.stride(0));
}

template <class Value>
nb::object owned(Value* values, const std::vector<size_t>& shape) {
  const nb::capsule owner(values, [](void* p) noexcept { delete[] static_cast<Value*>(p); });
  return nb::cast(nb::ndarray<nb::numpy, Value>(values, shape.size(), shape.data(), owner));
}

class Model {
 public:
  explicit Model(const std::string& path) {
    Message message;
    nb::gil_scoped_release others;
    espnetv2_model* found = espnetv2_load(path.c_str(), message.text, sizeof message.text);
    nb::gil_scoped_acquire own;
    model_ = Loaded(message.checked(found), espnetv2_free);
  }

  explicit Model(const nb::bytes& content) {
    Message message;
    model_ = Loaded(message.checked(espnetv2_load_memory(content.c_str(), content.size(),
                                                         message.text, sizeof message.text)),
                    espnetv2_free);
  }

  std::string instruction_set() const { return espnetv2_instruction_set_of(model_.get()); }
  int channels() const { return espnetv2_channels(model_.get()); }

  std::optional<std::string> metadata(const std::string& key) const {
    const char* found = espnetv2_metadata(model_.get(), key.c_str());
    return found ? std::optional<std::string>(found) : std::nullopt;
  }

  std::pair<int, int> size() const {
    int height = 0, width = 0;
    espnetv2_size(model_.get(), &height, &width);
    return {height, width};
  }

  nb::object prepare(const Pixels& rgb, int height, int width) const {
    Message message;
    const size_t stride = stride_of(rgb);
    if (height < 1 || width < 1 || height > 32768 || width > 32768) {
      throw nb::value_error("height and width must be between 1 and 32768");
    }
    const std::vector<size_t> shape = {3, static_cast<size_t>(height), static_cast<size_t>(width)};
    auto* image = new float[shape[0] * shape[1] * shape[2]];
    nb::object made = owned(image, shape);
    int done = 0;
    {
      const nb::gil_scoped_release others;
      done = espnetv2_prepare(model_.get(), rgb.data(), static_cast<int>(rgb.shape(1)),
                              static_cast<int>(rgb.shape(0)), stride, height, width, image,
                              message.text, sizeof message.text);
    }
    message.checked(done);
    return made;
  }

  nb::object paint(const nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>& classes) const {
    Message message;
    std::vector<size_t> shape;
    for (size_t i = 0; i < classes.ndim(); ++i) shape.push_back(classes.shape(i));
    shape.push_back(3);
    auto* rgb = new uint8_t[3 * classes.size()];
    nb::object made = owned(rgb, shape);
    message.checked(espnetv2_paint(model_.get(), classes.data(), classes.size(), rgb, message.text,
                                   sizeof message.text));
    return made;
  }

  const Loaded& loaded() const { return model_; }

 private:
  Loaded model_;
};

class Context {
 public:
  Context(const Model& model, int batch, int height, int width, int threads)
      : model_(model.loaded()), batch_(batch), height_(height), width_(width) {
    Message message;
    char* text = message.text;
    constexpr size_t size = sizeof message.text;
    arena_bytes_ = message.checked(
        espnetv2_arena_size(model_.get(), batch, height, width, threads, text, size));
    context_.reset(message.checked(
        espnetv2_open(model_.get(), batch, height, width, threads, nullptr, 0, text, size)));
  }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (int i = 0; i < espnetv2_outputs(context_.get()); ++i) {
      found.emplace_back(espnetv2_output_name(context_.get(), i));
    }
    return found;
  }

  size_t arena_bytes() const { return arena_bytes_; }

  nb::list run(const Image& image) {
    check(image);
    {
      nb::gil_scoped_release others;
      espnetv2_run(context_.get(), image.data());
    }
    return outputs();
  }

  nb::list see(const Pixels& rgb) {
    Message message;
    const size_t stride = stride_of(rgb);
    int done = 0;
    {
      const nb::gil_scoped_release others;
      done =
          espnetv2_see(context_.get(), rgb.data(), static_cast<int>(rgb.shape(1)),
                       static_cast<int>(rgb.shape(0)), stride, message.text, sizeof message.text);
    }
    message.checked(done);
    return outputs();
  }

  std::vector<std::pair<std::string, double>> profile(const Image& image) {
    check(image);
    const auto count =
        static_cast<size_t>(espnetv2_profile(context_.get(), image.data(), nullptr, nullptr));
    std::vector<const char*> names(count);
    std::vector<double> milliseconds(count);
    espnetv2_profile(context_.get(), image.data(), names.data(), milliseconds.data());
    std::vector<std::pair<std::string, double>> found;
    for (size_t i = 0; i < count; ++i) found.emplace_back(names[i], milliseconds[i]);
    return found;
  }

 private:
  void check(const Image& image) const {
    const bool fits = image.shape(0) == static_cast<size_t>(batch_) &&
                      image.shape(1) == static_cast<size_t>(espnetv2_channels(model_.get())) &&
                      image.shape(2) == static_cast<size_t>(height_) &&
                      image.shape(3) == static_cast<size_t>(width_);
    if (!fits) throw nb::value_error("the image has another shape than the context was opened for");
  }

  nb::list outputs() const {
    nb::list found;
    for (int i = 0; i < espnetv2_outputs(context_.get()); ++i) found.append(output(i));
    return found;
  }

  nb::object output(int index) const {
    const int rank = espnetv2_output_rank(context_.get(), index);
    const int64_t* sides = espnetv2_output_shape(context_.get(), index);
    const std::vector<size_t> shape(sides, sides + rank);
    const void* data = espnetv2_output_data(context_.get(), index);
    switch (espnetv2_output_type(context_.get(), index)) {
      case ESPNETV2_UINT8:
        return copy<uint8_t>(shape, data);
      case ESPNETV2_INT64:
        return copy<int64_t>(shape, data);
      default:
        return copy<float>(shape, data);
    }
  }

  template <class Value>
  static nb::object copy(const std::vector<size_t>& shape, const void* data) {
    size_t count = 1;
    for (const size_t side : shape) count *= side;
    auto* own = new Value[count];
    std::memcpy(own, data, count * sizeof(Value));
    return owned(own, shape);
  }

  struct Close {
    void operator()(espnetv2_context* context) const { espnetv2_close(context); }
  };

  Loaded model_;
  int batch_, height_, width_;
  size_t arena_bytes_ = 0;
  std::unique_ptr<espnetv2_context, Close> context_;
};

}  // namespace

NB_MODULE(_native, module) {
  module.def("version", espnetv2_version);
  module.def("peak", espnetv2_peak, nb::arg("seconds"), nb::call_guard<nb::gil_scoped_release>());
  module.def("instruction_set", [] {
    const char* found = espnetv2_instruction_set();
    if (!found)
      throw nb::value_error("ESPNETV2_NATIVE_ISA names no instruction set of this processor");
    return std::string(found);
  });
  nb::class_<Model>(module, "Model")
      .def(nb::init<const std::string&>(), nb::arg("path"))
      .def_static(
          "of", [](const nb::bytes& content) { return Model(content); }, nb::arg("content"))
      .def_prop_ro("channels", &Model::channels)
      .def_prop_ro("instruction_set", &Model::instruction_set)
      .def_prop_ro("size", &Model::size)
      .def("metadata", &Model::metadata, nb::arg("key"))
      .def("prepare", &Model::prepare, nb::arg("rgb"), nb::arg("height"), nb::arg("width"))
      .def("paint", &Model::paint, nb::arg("classes"))
      .def(
          "open",
          [](const Model& model, int batch, int height, int width, int threads) {
            return new Context(model, batch, height, width, threads);
          },
          nb::arg("batch"), nb::arg("height"), nb::arg("width"), nb::arg("threads") = 1,
          nb::rv_policy::take_ownership);
  nb::class_<Context>(module, "Context")
      .def_prop_ro("names", &Context::names)
      .def_prop_ro("arena_bytes", &Context::arena_bytes)
      .def("run", &Context::run, nb::arg("image"))
      .def("see", &Context::see, nb::arg("rgb"))
      .def("profile", &Context::profile, nb::arg("image"));
}
