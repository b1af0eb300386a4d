#include "programs.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "mutations.h"

namespace {

struct Made {
  std::string name;
  int channels;
  int shrunk;  // how often its sides were halved; 100 for one pixel
};

class Inventor {
 public:
  explicit Inventor(Random& random) : random_(random) {}

  std::string model() {
    made_.push_back({"image", 3, 0});
    const size_t count = 2 + random_.below(random_.chance(8) ? 60 : 12);
    for (size_t i = 0; i < count; ++i) add();
    std::string outputs;
    for (size_t i = 1 + random_.below(2); i > 0; --i) {
      outputs += (outputs.empty() ? "" : ", ") + output();
    }
    return model_file(
        "{\"channels\": 3, \"steps\": [" + steps_ + "], \"outputs\": [" + outputs + "]}",
        random_.pick(std::vector<std::string>{"fp32", "bf16", "int8"}), arrays_, data_);
  }

 private:
  static std::string text(const std::string& word) { return "\"" + word + "\""; }
  static std::string list(const std::vector<std::string>& names) {
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : ", ") + text(name);
    return "[" + all + "]";
  }

  // Mostly what was made last; the image seldom.
  const Made& some() {
    const size_t back = random_.below(random_.below(made_.size()) + 1);
    const Made& found = made_[made_.size() - 1 - back];
    return made_.size() > 1 && found.name == "image" && !random_.chance(3) ? made_.back() : found;
  }

  // A map as large as another one, and of as many channels unless any will do.
  const Made* like(const Made& other, bool any_channels) {
    std::vector<const Made*> fits;
    for (const Made& one : made_) {
      const bool same = any_channels || one.channels == other.channels;
      if (one.shrunk == other.shrunk && same && (one.name != "image" || random_.chance(20))) {
        fits.push_back(&one);
      }
    }
    return fits.empty() ? nullptr : random_.pick(fits);
  }

  std::string array(const std::vector<int>& shape, bool bytes = false) {
    const std::string name = "a" + std::to_string(arrays_made_++);
    std::string sides;
    size_t count = 1;
    for (const int side : shape) {
      sides += (sides.empty() ? "" : ",") + std::to_string(side);
      count *= static_cast<size_t>(side);
    }
    while (!bytes && data_.size() % sizeof(float)) data_.push_back(0);
    const size_t from = data_.size();
    for (size_t i = 0; i < count; ++i) {
      if (bytes) {
        data_.push_back(static_cast<char>(random_.below(256)));
        continue;
      }
      const float value = (static_cast<float>(random_.below(2001)) - 1000) / 1500;
      char bytes[sizeof value];
      std::memcpy(bytes, &value, sizeof value);
      data_.append(bytes, sizeof value);
    }
    arrays_ += "," + text(name) + ":{\"dtype\":\"" + (bytes ? "I8" : "F32") + "\",\"shape\":[" +
               sides + "],\"data_offsets\":[" + std::to_string(from) + "," +
               std::to_string(data_.size()) + "]}";
    return text(name);
  }

  void finish(const std::string& op, const std::vector<std::string>& sources, int channels,
              int shrunk, const std::string& options) {
    const std::string name = "t" + std::to_string(made_.size());
    steps_ += (steps_.empty() ? "" : ", ") + ("{\"op\": " + text(op)) +
              ", \"in\": " + list(sources) + ", \"out\": " + text(name) + options +
              slopes(channels) + "}";
    made_.push_back({name, channels, shrunk});
  }

  std::string slopes(int channels) {
    if (random_.chance(2)) return "";
    return ", \"rise\": " + array({channels}) + ", \"fall\": " + array({channels});
  }
  std::string affine(int channels) {
    if (random_.chance(2)) return "";
    return ", \"scale\": " + array({channels}) + ", \"shift\": " + array({channels});
  }
  std::string maybe(const char* key, const Made* one) {
    return one && random_.chance(2) ? std::string(", \"") + key + "\": " + text(one->name) : "";
  }
  static std::string number(const char* key, int value) {
    return std::string(", \"") + key + "\": " + std::to_string(value);
  }
  static int after(int shrunk, int stride) { return shrunk == 100 ? 100 : shrunk + stride - 1; }

  void add() {
    const Made x = some();
    switch (random_.below(x.name == "image" ? 3 : 17)) {
      case 0:
        return finish("shrink", {x.name}, x.channels, after(x.shrunk, 2), "");
      case 1:
      case 2:
      case 3:
      case 4:
        return conv(x);
      case 5:
      case 6:
        return pyramid(x);
      case 7:
        return finish("maximum", {x.name}, x.channels, after(x.shrunk, 2), "");
      case 8:
        return finish("mean", {x.name}, x.channels, 100, "");
      case 9:
        return resize(x, "adapt");
      case 10:
        return resize(x, "resize");
      case 11:
        return combine(x);
      case 12:
        return gather(x);
      case 13:
        return shuffle(x);
      case 14:
        return concat(x);
      case 15:
        return rescale(x);
      default:
        return enlarge(x);
    }
  }

  void conv(const Made& x) {
    const int groups = x.channels % 2 == 0 && random_.chance(3) ? 2 : 1;
    const int stride = 1 + random_.chance(4), side = random_.chance(2) ? 1 : 3;
    Made made{"", groups * static_cast<int>(1 + random_.below(20)), after(x.shrunk, stride)};
    std::string options = number("groups", groups) + number("stride", stride) +
                          number("dilation", static_cast<int>(1 + random_.below(4)));
    const Made* residual = like(made, true);
    if (residual && residual->channels % groups == 0 && random_.chance(2)) {
      made.channels = residual->channels;
      options += std::string(random_.chance(4) ? ", \"lanes_of\": " : ", \"residual\": ") +
                 text(residual->name);
    }
    const bool bytes = side == 1 && stride == 1 && random_.chance(2);
    if (bytes) {
      options += ", \"weight_scale\": " + array({made.channels}) + ", \"input_scale\": 0.02" +
                 number("input_zero", static_cast<int>(random_.below(256)));
    }
    options += ", \"weight\": " + array({made.channels, x.channels / groups, side, side}, bytes);
    if (random_.chance(2)) options += ", \"bias\": " + array({made.channels});
    finish("conv", {x.name}, made.channels, made.shrunk, options);
  }

  void pyramid(const Made& x) {
    std::vector<std::string> sources = {x.name};
    while (random_.chance(4)) {
      if (const Made* other = like(x, false)) sources.push_back(other->name);
    }
    const int stride = 1 + random_.chance(3);
    const size_t branches = 1 + random_.below(4);
    std::string options;
    for (size_t i = 0; i < branches; ++i) {
      const int side = 1 + 2 * static_cast<int>(random_.below(3));
      options +=
          (i ? ", " : "") +
          ("{\"weight\": " + array({x.channels, static_cast<int>(sources.size()), side, side})) +
          number("dilation", static_cast<int>(1 + random_.below(9)));
      if (random_.chance(3)) options += ", \"bias\": " + array({x.channels});
      options += "}";
    }
    const int channels = x.channels * static_cast<int>(branches);
    finish("pyramid", sources, channels, after(x.shrunk, stride),
           ", \"branches\": [" + options + "]" + number("stride", stride) +
               (random_.chance(2) ? ", \"running\": true" : "") + affine(channels));
  }

  void resize(const Made& x, const char* op) {
    const Made target = some();
    const bool same = random_.chance(2);
    const std::string scale =
        same ? ""
             : number("numerator", static_cast<int>(1 + random_.below(9))) +
                   number("denominator", static_cast<int>(1 + random_.below(9))) +
                   number("least", static_cast<int>(1 + random_.below(7)));
    const int shrunk = same ? target.shrunk : 200 + static_cast<int>(made_.size());
    finish(op, {x.name}, x.channels, shrunk,
           ", \"size\": {\"like\": " + text(target.name) + scale + "}");
  }

  // What the engine makes one step of.
  void rescale(const Made& x) {
    const auto size = [&](const std::string& scale) {
      return ", \"size\": {\"like\": " + text(x.name) + scale + "}";
    };
    const int denominator = static_cast<int>(1 + random_.below(4));
    const int numerator = denominator + static_cast<int>(random_.below(5));
    const std::string large = "t" + std::to_string(made_.size());
    const int shrunk = 200 + static_cast<int>(made_.size());
    steps_ += ", {\"op\": \"resize\", \"in\": " + list({x.name}) + ", \"out\": " + text(large) +
              size(number("numerator", numerator) + number("denominator", denominator) +
                   number("least", static_cast<int>(1 + random_.below(7)))) +
              "}";
    made_.push_back({large, x.channels, shrunk});
    const std::string seen = "t" + std::to_string(made_.size());
    steps_ += ", {\"op\": \"pyramid\", \"in\": " + list({large}) + ", \"out\": " + text(seen) +
              ", \"branches\": [{\"weight\": " + array({x.channels, 1, 3, 3}) + "}]}";
    made_.push_back({seen, x.channels, shrunk});
    finish("adapt", {seen}, x.channels, x.shrunk, size(""));
  }

  void combine(const Made& x) {
    const Made* gate = like({"", x.channels, 100}, false);
    finish(random_.chance(5) ? "logistic" : "combine", {x.name}, x.channels, x.shrunk,
           maybe("other", like(x, false)) + maybe("gate", gate) + affine(x.channels));
  }

  void gather(const Made& x) {
    std::string picked;
    const size_t count = 1 + random_.below(40);
    for (size_t i = 0; i < count; ++i) {
      picked += (i ? ", " : "") + std::to_string(random_.below(static_cast<size_t>(x.channels)));
    }
    finish("gather", {x.name}, static_cast<int>(count), x.shrunk,
           ", \"channels\": [" + picked + "]");
  }

  void shuffle(const Made& x) {
    int groups = static_cast<int>(1 + random_.below(6));
    while (x.channels % groups) --groups;
    finish("shuffle", {x.name}, x.channels, x.shrunk, number("groups", groups));
  }

  void concat(const Made& x) {
    std::vector<std::string> sources = {x.name};
    int channels = x.channels;
    for (size_t left = random_.below(4); left > 0 && channels < 200; --left) {
      if (const Made* other = like(x, true)) {
        sources.push_back(other->name);
        channels += other->channels;
      }
    }
    finish("concat", sources, channels, x.shrunk, "");
  }

  void enlarge(const Made& x) {
    std::vector<const Made*> larger;
    for (const Made& one : made_) {
      if (one.shrunk + 1 == x.shrunk) larger.push_back(&one);
    }
    if (larger.empty()) return concat(x);
    const Made target = *random_.pick(larger);
    const int channels = static_cast<int>(1 + random_.below(20));
    finish("enlarge", {x.name}, channels, target.shrunk,
           ", \"weight\": " + array({x.channels, channels, 2, 2}) + ", \"bias\": " +
               array({channels}) + ", \"size\": {\"like\": " + text(target.name) + "}");
  }

  std::string output() {
    const Made x = some();
    std::vector<std::string> sources = {x.name};
    std::string form = x.shrunk == 100 ? "vector" : random_.chance(3) ? "map" : "classes";
    if (random_.chance(4)) {
      form = "places";
      sources.push_back(some().name);
    }
    const std::string enlarged = form == "map" && random_.chance(2) ? ", \"enlarged\": true" : "";
    return "{\"name\": \"o\", \"in\": " + list(sources) + ", \"form\": " + text(form) + enlarged +
           "}";
  }

  Random& random_;
  std::vector<Made> made_;
  std::string steps_, arrays_, data_;
  int arrays_made_ = 0;
};

}  // namespace

std::string random_model(Random& random) { return Inventor(random).model(); }
