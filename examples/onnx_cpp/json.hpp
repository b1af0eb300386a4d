// The little of JSON that export.json needs: objects, lists, texts, numbers, true, false, null.
#pragma once

#include <cctype>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
  enum class Kind { null, boolean, number, text, list, object } kind = Kind::null;
  double number = 0;
  std::string text;
  std::vector<Json> list;
  std::map<std::string, Json> object;

  const Json& operator[](const std::string& key) const { return object.at(key); }
  const Json& operator[](std::size_t place) const { return list.at(place); }
  bool is_null() const { return kind == Kind::null; }
  bool is_number() const { return kind == Kind::number; }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& source) : source_(source) {}

  Json read() {
    Json value = read_value();
    skip_space();
    if (at_ != source_.size()) fail("more than one value");
    return value;
  }

 private:
  Json read_value() {
    skip_space();
    Json value;
    switch (peek()) {
      case '{':
        value.kind = Json::Kind::object;
        for (open('{'); !closed('}');) {
          skip_space();
          std::string key = read_text();
          expect(':');
          value.object[key] = read_value();
        }
        return value;
      case '[':
        value.kind = Json::Kind::list;
        for (open('['); !closed(']');) value.list.push_back(read_value());
        return value;
      case '"':
        value.kind = Json::Kind::text;
        value.text = read_text();
        return value;
      case 't':
        word("true");
        value.kind = Json::Kind::boolean;
        value.number = 1;
        return value;
      case 'f':
        word("false");
        value.kind = Json::Kind::boolean;
        return value;
      case 'n':
        word("null");
        return value;
      default:
        return read_number();
    }
  }

  Json read_number() {
    const char* start = source_.c_str() + at_;
    char* end = nullptr;
    Json value;
    value.kind = Json::Kind::number;
    value.number = std::strtod(start, &end);
    if (end == start) fail("no value");
    at_ += static_cast<std::size_t>(end - start);
    return value;
  }

  std::string read_text() {
    expect('"');
    std::string found;
    while (peek() != '"') {
      char letter = source_[at_++];
      if (letter == '\\') letter = read_escape(found);
      if (letter != '\0') found += letter;
    }
    ++at_;
    return found;
  }

  // Appends what needs several bytes itself and gives '\0' then.
  char read_escape(std::string& found) {
    char letter = peek();
    ++at_;
    if (letter == 'n') return '\n';
    if (letter == 't') return '\t';
    if (letter != 'u') return letter;
    unsigned code = static_cast<unsigned>(std::stoul(source_.substr(at_, 4), nullptr, 16));
    at_ += 4;
    if (code < 0x80) return static_cast<char>(code);
    if (code >= 0x800) {
      found += static_cast<char>(0xE0 | (code >> 12));
      found += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    } else {
      found += static_cast<char>(0xC0 | (code >> 6));
    }
    found += static_cast<char>(0x80 | (code & 0x3F));
    return '\0';
  }

  void open(char bracket) {
    expect(bracket);
    fresh_ = true;
  }

  // Whether the list ends here; otherwise steps over the comma between two values.
  bool closed(char bracket) {
    bool first = fresh_;
    fresh_ = false;
    skip_space();
    if (peek() == bracket) {
      ++at_;
      return true;
    }
    if (!first) expect(',');
    return false;
  }

  void word(const std::string& expected) {
    if (source_.compare(at_, expected.size(), expected) != 0) fail("expected " + expected);
    at_ += expected.size();
  }

  void expect(char letter) {
    skip_space();
    if (peek() != letter) fail(std::string("expected ") + letter);
    ++at_;
  }

  char peek() const {
    if (at_ >= source_.size()) fail("it ends too early");
    return source_[at_];
  }

  void skip_space() {
    while (at_ < source_.size() && std::isspace(static_cast<unsigned char>(source_[at_]))) ++at_;
  }

  [[noreturn]] void fail(const std::string& why) const {
    throw std::runtime_error("export.json, byte " + std::to_string(at_) + ": " + why);
  }

  std::string source_;
  std::size_t at_ = 0;
  bool fresh_ = false;
};
