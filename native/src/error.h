// What goes wrong inside; it never leaves the library, whose border is C (see api.cpp).
#pragma once
#include <stdexcept>
#include <string>

namespace espnetv2 {

// A file, a size or a setting that does not fit. The message is one line for the user.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void require(bool holds, const std::string& otherwise) {
  if (!holds) throw Error(otherwise);
}

}  // namespace espnetv2
