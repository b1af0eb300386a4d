// JSON as it stands in the header of a model file: small, and written by somebody else.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace espnetv2 {

// What a text says as JSON writes numbers, however this process's locale does; NaN if it is none.
double number_of(std::string text);

// A value. Asking it for what it is not raises an Error that names the key it was found under.
class Json {
 public:
  enum class Kind { null, boolean, number, text, list, object };

  // Raises Error where the text is no JSON, or nests deeper than 32.
  static Json parse(std::string_view text);

  Kind kind() const { return kind_; }
  bool has(const std::string& key) const;
  const Json& at(const std::string& key) const;

  bool boolean() const;
  double number() const;
  int64_t integer(int64_t least, int64_t most) const;
  const std::string& text() const;
  const std::vector<Json>& list() const;
  const std::map<std::string, Json>& object() const;

  // What stands under a key, or a default where it does not.
  int64_t integer_or(const std::string& key, int64_t otherwise, int64_t least, int64_t most) const;
  std::string text_or(const std::string& key, const std::string& otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;

 private:
  friend class Reader;
  void expect(Kind kind, const char* what) const;

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  double number_ = 0;
  std::string text_;
  std::vector<Json> list_;
  std::map<std::string, Json> object_;
};

}  // namespace espnetv2
