// Run an exported network on a picture with ONNX Runtime.
//
//   run_onnx FOLDER PICTURE.ppm [THREADS] [INPUT.bin]
//
// FOLDER is what `espnetv2 export MODEL --to onnx --output decoded --out FOLDER` has written. A
// classifier's best classes are printed, a segmenter's share of each class, a detector's boxes in
// pixels of the picture. A segmenter's mask goes into mask.pgm; the fourth argument asks for the
// network's input as raw numbers.

#define ORT_API_MANUAL_INIT  // `begin` does it
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <sstream>

#include "json.hpp"
#include "picture.hpp"

constexpr float sure = 0.3f;  // least score of a box that is shown

struct Input {
  std::vector<std::int64_t> shape;  // 1, 3, height, width
  std::vector<float> values;        // preprocessed
  std::vector<std::uint8_t> pixels;  // or as they are, if the graph does the rest
};

Json read_facts(const std::string& folder) {
  std::ifstream file(folder + "/export.json");
  if (!file) throw std::runtime_error("no export.json in " + folder);
  std::stringstream text;
  text << file.rdbuf();
  Json facts = JsonReader(text.str()).read();
  if (facts["gives"].text != "decoded") {
    throw std::runtime_error(folder + ": export it with --output decoded");
  }
  return facts;
}

Picture at_network_size(const Picture& picture, const Json& facts) {
  const Json& spec = facts["preprocessing"];
  const Json& shape = facts["inputs"][0]["shape"];
  if (shape[2].is_number()) {
    return fitted(picture, static_cast<int>(shape[2].number), static_cast<int>(shape[3].number), spec);
  }
  if (spec["size"].is_null()) return picture;  // the network takes any size
  return fitted(picture, static_cast<int>(spec["size"][0].number),
                static_cast<int>(spec["size"][1].number), spec);
}

Input prepare(const Picture& picture, const Json& facts) {
  const Json& spec = facts["preprocessing"];
  Picture fit = at_network_size(picture, facts);
  bool whole = facts["takes"].text == "pixels";  // the graph does the rest
  bool reversed = !whole && spec["order"].text == "bgr";
  bool to_round = whole || spec["resize"].text == "plain";
  Input input{{1, 3, fit.height, fit.width}, {}, {}};
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < fit.height; ++y)
      for (int x = 0; x < fit.width; ++x) {
        float value = fit.at(y, x, reversed ? 2 - c : c);
        if (to_round) value = rounded(value);
        if (!whole) {
          double scaled = (value / spec["unit"].number - spec["mean"][c].number);
          value = static_cast<float>(scaled / spec["std"][c].number / spec["divisor"].number);
        }
        input.values.push_back(value);
      }
  if (facts["inputs"][0]["dtype"].text == "uint8") {
    input.pixels.assign(input.values.begin(), input.values.end());
  }
  return input;
}

std::vector<Ort::Value> run(Ort::Session& session, Input& input, const Json& facts) {
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto tensor = [&](auto& values) {
    return Ort::Value::CreateTensor(memory, values.data(), values.size(), input.shape.data(), 4);
  };
  Ort::Value given = input.pixels.empty() ? tensor(input.values) : tensor(input.pixels);
  const char* input_name = facts["inputs"][0]["name"].text.c_str();
  std::vector<const char*> names;
  for (const Json& port : facts["outputs"].list) names.push_back(port["name"].text.c_str());
  return session.Run(Ort::RunOptions{nullptr}, &input_name, &given, 1, names.data(), names.size());
}

void show_classes(const Ort::Value& output, const Json& names) {
  const float* probabilities = output.GetTensorData<float>();
  std::vector<std::size_t> order(names.list.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return probabilities[a] > probabilities[b]; });
  order.resize(std::min<std::size_t>(order.size(), 5));
  for (auto place : order) std::printf("%.3f %s\n", probabilities[place], names[place].text.c_str());
}

void show_mask(const Ort::Value& output, const Json& names) {
  auto shape = output.GetTensorTypeAndShapeInfo().GetShape();  // 1, height, width
  std::size_t count = static_cast<std::size_t>(shape[1] * shape[2]);
  const std::uint8_t* mask = output.GetTensorData<std::uint8_t>();
  std::vector<std::size_t> found(names.list.size());
  for (std::size_t i = 0; i < count; ++i) ++found.at(mask[i]);
  for (std::size_t place = 0; place < found.size(); ++place)
    if (found[place])
      std::printf("%.3f %s\n", static_cast<double>(found[place]) / count, names[place].text.c_str());
  std::ofstream file("mask.pgm", std::ios::binary);
  file << "P5\n" << shape[2] << " " << shape[1] << "\n255\n";
  file.write(reinterpret_cast<const char*>(mask), static_cast<std::streamsize>(count));
}

void show_boxes(const std::vector<Ort::Value>& outputs, const Json& names, const Picture& picture) {
  const float* boxes = outputs[0].GetTensorData<float>();
  const float* scores = outputs[1].GetTensorData<float>();
  const std::int64_t* labels = outputs[2].GetTensorData<std::int64_t>();
  auto count = static_cast<std::size_t>(outputs[1].GetTensorTypeAndShapeInfo().GetShape()[1]);
  for (std::size_t i = 0; i < count && scores[i] >= sure; ++i) {  // best first
    const char* name = names[static_cast<std::size_t>(labels[i])].text.c_str();
    std::printf("%.3f %s %.0f %.0f %.0f %.0f\n", scores[i], name, boxes[4 * i] * picture.width,
                boxes[4 * i + 1] * picture.height, boxes[4 * i + 2] * picture.width,
                boxes[4 * i + 3] * picture.height);
  }
}

void write_input(const Input& input, const char* path) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(input.values.data()),
             static_cast<std::streamsize>(input.values.size() * sizeof(float)));
}

// The interface of the library that is there, which may be older than the headers: "1.23.2" has the
// 23rd, and each one only adds to the one before.
void begin() {
  const OrtApiBase* base = OrtGetApiBase();
  const std::string version = base->GetVersionString();
  const int minor = std::stoi(version.substr(version.find('.') + 1));
  Ort::InitApi(base->GetApi(std::min<std::uint32_t>(ORT_API_VERSION, minor)));
}

int main(int count, char** arguments) try {
  if (count < 3) {
    std::cerr << "usage: " << arguments[0] << " FOLDER PICTURE.ppm [THREADS] [INPUT.bin]\n";
    return 2;
  }
  begin();
  std::string folder = arguments[1];
  Json facts = read_facts(folder);
  Picture picture = read_ppm(arguments[2]);
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "run_onnx");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(count > 3 ? std::stoi(arguments[3]) : 2);
  std::string model = folder + "/" + facts["files"][0].text;
  Ort::Session session(environment, model.c_str(), options);
  Input input = prepare(picture, facts);
  if (count > 4) write_input(input, arguments[4]);
  auto outputs = run(session, input, facts);
  const std::string& task = facts["task"].text;
  if (task == "classification") show_classes(outputs[0], facts["classes"]);
  else if (task == "segmentation") show_mask(outputs[0], facts["classes"]);
  else show_boxes(outputs, facts["classes"], picture);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
