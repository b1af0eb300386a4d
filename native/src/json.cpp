#include "json.h"

#include <clocale>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "error.h"

namespace espnetv2 {

namespace {
constexpr int kDeepest = 32;
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json document() {
    Json value = read(0);
    space();
    require(place_ == text_.size(), "the header's JSON goes on behind its end");
    return value;
  }

 private:
  [[noreturn]] void fail() const {
    throw Error("the header's JSON is damaged at byte " + std::to_string(place_));
  }

  void space() {
    while (place_ < text_.size() &&
           std::string_view(" \t\r\n").find(text_[place_]) != std::string_view::npos) {
      ++place_;
    }
  }

  char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }

  bool take(char wanted) {
    space();
    if (peek() != wanted) return false;
    ++place_;
    return true;
  }

  void word(std::string_view wanted) {
    if (text_.substr(place_, wanted.size()) != wanted) fail();
    place_ += wanted.size();
  }

  Json read(int depth) {
    if (depth > kDeepest) throw Error("the header's JSON nests too deep");
    space();
    Json value;
    switch (peek()) {
      case '{':
        object(value, depth);
        break;
      case '[':
        list(value, depth);
        break;
      case '"':
        value.kind_ = Json::Kind::text;
        value.text_ = string();
        break;
      case 't':
        word("true");
        value.kind_ = Json::Kind::boolean;
        value.boolean_ = true;
        break;
      case 'f':
        word("false");
        value.kind_ = Json::Kind::boolean;
        break;
      case 'n':
        word("null");
        break;
      default:
        number(value);
    }
    return value;
  }

  void object(Json& value, int depth) {
    value.kind_ = Json::Kind::object;
    ++place_;
    if (take('}')) return;
    do {
      space();
      if (peek() != '"') fail();
      std::string key = string();
      if (!take(':')) fail();
      value.object_[std::move(key)] = read(depth + 1);
    } while (take(','));
    if (!take('}')) fail();
  }

  void list(Json& value, int depth) {
    value.kind_ = Json::Kind::list;
    ++place_;
    if (take(']')) return;
    do {
      value.list_.push_back(read(depth + 1));
    } while (take(','));
    if (!take(']')) fail();
  }

  void number(Json& value) {
    const size_t start = place_;
    while (place_ < text_.size() &&
           std::string_view("+-.0123456789eE").find(text_[place_]) != std::string_view::npos) {
      ++place_;
    }
    value.kind_ = Json::Kind::number;
    value.number_ = number_of(std::string(text_.substr(start, place_ - start)));
    if (!std::isfinite(value.number_)) fail();
  }

  std::string string() {
    std::string found;
    ++place_;
    for (;;) {
      if (place_ >= text_.size()) fail();
      const char c = text_[place_++];
      if (c == '"') return found;
      if (static_cast<unsigned char>(c) < 0x20) fail();
      if (c == '\\') {
        escape(found);
      } else {
        found += c;
      }
    }
  }

  void escape(std::string& found) {
    const char c = peek();
    ++place_;
    constexpr std::string_view kinds = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    const size_t kind = kinds.find(c);
    if (kind != std::string_view::npos && c != '\0') {
      found += meant[kind];
    } else if (c == 'u') {
      unsigned code = hex();
      if (code >= 0xD800 && code < 0xDC00 && text_.substr(place_, 2) == "\\u") {
        place_ += 2;
        const unsigned low = hex();
        if (low < 0xDC00 || low > 0xDFFF) fail();
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      }
      encode(found, code);
    } else {
      fail();
    }
  }

  unsigned hex() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++place_) {
      const char c = peek();
      const size_t digit = std::string_view("0123456789abcdef").find(c | 0x20);
      const bool plain = c >= '0' && c <= '9';
      if (digit == std::string_view::npos || (digit < 10 && !plain)) fail();
      code = code * 16 + static_cast<unsigned>(digit);
    }
    return code;
  }

  static void encode(std::string& found, unsigned code) {
    if (code < 0x80) {
      found += static_cast<char>(code);
      return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr unsigned leads[] = {0, 0xC0, 0xE0, 0xF0};
    found += static_cast<char>(leads[more] | (code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i)
      found += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  }

  std::string_view text_;
  size_t place_ = 0;
};

double number_of(std::string text) {
  if (const size_t point = text.find('.'); point != std::string::npos) {
    text.replace(point, 1, std::localeconv()->decimal_point);
  }
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return text.empty() || *end != '\0' ? std::numeric_limits<double>::quiet_NaN() : number;
}

Json Json::parse(std::string_view text) { return Reader(text).document(); }

void Json::expect(Kind kind, const char* what) const {
  require(kind_ == kind, std::string("the header holds something else than ") + what);
}

bool Json::has(const std::string& key) const {
  expect(Kind::object, "an object");
  const auto found = object_.find(key);
  return found != object_.end() && found->second.kind_ != Kind::null;
}

const Json& Json::at(const std::string& key) const {
  require(has(key), "the header lacks '" + key + "'");
  return object_.at(key);
}

bool Json::boolean() const {
  expect(Kind::boolean, "true or false");
  return boolean_;
}

double Json::number() const {
  expect(Kind::number, "a number");
  return number_;
}

int64_t Json::integer(int64_t least, int64_t most) const {
  expect(Kind::number, "a number");
  const bool fits = number_ >= static_cast<double>(least) && number_ <= static_cast<double>(most);
  require(fits && number_ == std::floor(number_), "the header holds a number out of its range");
  return static_cast<int64_t>(number_);
}

const std::string& Json::text() const {
  expect(Kind::text, "a text");
  return text_;
}

const std::vector<Json>& Json::list() const {
  expect(Kind::list, "a list");
  return list_;
}

const std::map<std::string, Json>& Json::object() const {
  expect(Kind::object, "an object");
  return object_;
}

int64_t Json::integer_or(const std::string& key, int64_t otherwise, int64_t least,
                         int64_t most) const {
  return has(key) ? at(key).integer(least, most) : otherwise;
}

std::string Json::text_or(const std::string& key, const std::string& otherwise) const {
  return has(key) ? at(key).text() : otherwise;
}

bool Json::boolean_or(const std::string& key, bool otherwise) const {
  return has(key) ? at(key).boolean() : otherwise;
}

}  // namespace espnetv2
