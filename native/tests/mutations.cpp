#include "mutations.h"

#include <cstdint>
#include <vector>

namespace {

constexpr size_t kLength = 8;

const char* const kNumbers[] = {"0",          "-1",
                                "1",          "2",
                                "3",          "7",
                                "0.5",        "-0",
                                "64",         "65",
                                "255",        "257",
                                "1000",       "65535",
                                "65536",      "65537",
                                "2147483647", "2147483648",
                                "4e9",        "1e18",
                                "1e308",      "1e999",
                                "nan",        "-2147483649",
                                "16777216",   "18446744073709551616",
                                "[]",         "\"a0\"",
                                "null",       "true",
                                "{}",         "1e-5"};
const char* const kWords[] = {"conv",   "pyramid", "shrink", "maximum", "mean",     "adapt",
                              "resize", "combine", "gather", "shuffle", "concat",   "enlarge",
                              "map",    "vector",  "places", "classes", "logistic", "image",
                              "a0",     "a1",      "a2",     "",        "nowhere"};
const char* const kKeys[] = {"residual", "gate",   "other",  "lanes_of", "like",    "weight",
                             "bias",     "scale",  "shift",  "rise",     "fall",    "stride",
                             "dilation", "groups", "values", "running",  "enlarged"};

struct Span {
  size_t start, end;
  size_t size() const { return end - start; }
};

std::string little_endian(uint64_t value) {
  std::string bytes;
  for (size_t i = 0; i < kLength; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xFF);
  return bytes;
}

// Where the header ends.
size_t header_end(const std::string& file) {
  uint64_t length = 0;
  for (size_t i = kLength; i-- > 0 && file.size() >= kLength;) {
    length = length << 8 | static_cast<unsigned char>(file[i]);
  }
  return kLength + (length < file.size() ? static_cast<size_t>(length) : 0);
}

std::string quoted(const std::string& text) {
  std::string found;
  for (const char c : text) {
    if (c == '"' || c == '\\') found += '\\';
    found += c;
  }
  return found;
}

// The program's JSON as it stands in a header, escaped.
Span program_of(const std::string& header) {
  const std::string key = "\"program\":\"";
  const size_t found = header.find(key);
  if (found == std::string::npos) return {0, 0};
  const size_t start = found + key.size();
  size_t end = start;
  while (end < header.size() && header[end] != '"') end += header[end] == '\\' ? 2 : 1;
  return {start, end < header.size() ? end : start};
}

// ---- JSON as a text with places
// -------------------------------------------------------------------

struct Tokens {
  std::vector<Span> numbers, texts, objects, lists;
};

size_t text_end(const std::string& json, size_t start) {
  size_t end = start + 1;
  while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
  return end < json.size() ? end + 1 : json.size();
}

Tokens tokens_of(const std::string& json) {
  Tokens found;
  std::vector<size_t> open;
  for (size_t i = 0; i < json.size();) {
    const char c = json[i];
    if (c == '"') {
      const size_t end = text_end(json, i);
      found.texts.push_back({i, end});
      i = end;
      continue;
    }
    if ((c >= '0' && c <= '9') || c == '-') {
      const size_t end = json.find_first_not_of("+-.0123456789eE", i);
      found.numbers.push_back({i, end == std::string::npos ? json.size() : end});
      i = found.numbers.back().end;
      continue;
    }
    if (c == '{' || c == '[') open.push_back(i);
    if ((c == '}' || c == ']') && !open.empty()) {
      (c == '}' ? found.objects : found.lists).push_back({open.back(), i + 1});
      open.pop_back();
    }
    ++i;
  }
  return found;
}

std::string cut(const std::string& json, const Span& span) {
  return json.substr(span.start, span.size());
}

void replace(std::string& json, const Span& span, const std::string& by) {
  json.replace(span.start, span.size(), by);
}

void exchange(std::string& json, Span one, Span other) {
  if (one.start > other.start) std::swap(one, other);
  if (one.end > other.start) return;
  const std::string first = cut(json, one), second = cut(json, other);
  replace(json, other, first);
  replace(json, one, second);
}

// Takes an object out, with the comma that goes with it.
void remove(std::string& json, Span span) {
  const size_t comma = json.find_first_not_of(' ', span.end);
  if (comma < json.size() && json[comma] == ',') {
    span.end = comma + 1;
  } else if (span.start > 0) {
    const size_t before = json.find_last_not_of(' ', span.start - 1);
    if (before != std::string::npos && json[before] == ',') span.start = before;
  }
  replace(json, span, "");
}

std::string deep(Random& random) {
  const size_t depth = 1 + random.below(100000);
  const char* const open = random.chance(2) ? "[" : "{\"a\":";
  std::string nested;
  for (size_t i = 0; i < depth; ++i) nested += open;
  return nested;
}

// A key more, which counts before the one that was there.
void add_key(std::string& json, const Tokens& tokens, Random& random) {
  const Span object = random.pick(tokens.objects);
  std::string value =
      random.chance(3) ? random.pick(kNumbers) : cut(json, random.pick(tokens.texts));
  if (random.chance(6)) value = "{\"like\": " + value + ", \"numerator\": 1000}";
  const std::string key = value[0] == '{' ? "size" : random.pick(kKeys);
  json.insert(object.end - 1, ", \"" + key + "\": " + value);
}

void change_json(std::string& json, Random& random) {
  const Tokens tokens = tokens_of(json);
  if (tokens.numbers.empty() || tokens.texts.empty() || tokens.objects.empty()) return;
  switch (random.below(11)) {
    case 0:
    case 1:
      return replace(json, random.pick(tokens.numbers), random.pick(kNumbers));
    case 2:
      return replace(json, random.pick(tokens.numbers), std::to_string(random.below(70)));
    case 3:
      return exchange(json, random.pick(tokens.texts), random.pick(tokens.texts));
    case 4:  // another tensor, array or step
      return replace(json, random.pick(tokens.texts), cut(json, random.pick(tokens.texts)));
    case 5:
      return replace(json, random.pick(tokens.texts),
                     "\"" + std::string(random.pick(kWords)) + "\"");
    case 6:
      return exchange(json, random.pick(tokens.objects), random.pick(tokens.objects));
    case 7: {
      const Span twice = random.pick(tokens.objects);
      json.insert(twice.end, ", " + cut(json, twice));
      return;
    }
    case 8:
      return remove(json, random.pick(tokens.objects));
    case 9:
      if (!random.chance(8)) return add_key(json, tokens, random);
      return replace(json, random.pick(tokens.lists), deep(random));
    default:
      if (tokens.lists.empty()) return;
      return replace(json, random.pick(tokens.lists), cut(json, random.pick(tokens.lists)));
  }
}

// ---- files
// ----------------------------------------------------------------------------------------

void change_program(std::string& file, Random& random) {
  const size_t end = header_end(file);
  std::string header = file.substr(kLength, end - kLength);
  const Span escaped = program_of(header);
  std::string program;
  for (size_t i = escaped.start; i < escaped.end; ++i) {
    if (header[i] == '\\') ++i;
    program += header[i];
  }
  for (size_t left = 1 + random.below(3); left > 0; --left) change_json(program, random);
  replace(header, escaped, quoted(program));
  header.resize((header.size() + 7) / 8 * 8, ' ');
  file = little_endian(header.size()) + header + file.substr(end);
}

// Shapes, types and places of the arrays, and the other texts.
void change_header(std::string& file, Random& random) {
  const size_t end = header_end(file);
  std::string header = file.substr(kLength, end - kLength);
  change_json(header, random);
  if (!random.chance(4)) header.resize((header.size() + 7) / 8 * 8, ' ');
  const size_t said = random.chance(8) ? random.below(2 * file.size()) : header.size();
  file = little_endian(said) + header + file.substr(end);
}

void flip(std::string& file, size_t end, Random& random) {
  for (size_t left = 1 + random.below(8); left > 0 && end > 0; --left) {
    file[random.below(end)] ^= static_cast<char>(1u << random.below(8));
  }
}

}  // namespace

std::string model_file(const std::string& program, const std::string& precision,
                       const std::string& arrays, const std::string& data) {
  std::string header = "{\"__metadata__\":{\"format\":\"espnetv2-native/1\",\"precision\":\"" +
                       precision + "\",\"program\":\"" + quoted(program) + "\"}" + arrays + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return little_endian(header.size()) + header + data;
}

std::string mutate(const std::string& file, Random& random) {
  std::string changed = file;
  switch (random.below(16)) {
    case 0:
      changed.resize(random.below(file.size()));
      break;
    case 1:
      changed.resize(random.below(header_end(file) + 16));
      break;
    case 2:
      flip(changed, kLength, random);
      break;
    case 3:
    case 4:
      flip(changed, header_end(file), random);
      break;
    case 5:  // weights: anything, NaN too, is a number
      flip(changed, file.size(), random);
      break;
    case 6:
    case 7:
      change_header(changed, random);
      break;
    default:
      change_program(changed, random);
  }
  return changed;
}
