// Pictures as files that need no library: binary PPM (P6).
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Ppm {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;

  Ppm(int w, int h) : width(w), height(h), rgb(3 * static_cast<size_t>(w) * h) {}
};

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// A number of the header, behind white space and comments; -1 where there is none.
inline int number_in(std::FILE* file) {
  int next = std::fgetc(file);
  while (next == '#' || next == ' ' || (next >= '\t' && next <= '\r')) {
    if (next == '#') {
      while (next != '\n' && next != EOF) next = std::fgetc(file);
    }
    next = std::fgetc(file);
  }
  int value = -1;
  for (; next >= '0' && next <= '9' && value < 100000; next = std::fgetc(file)) {
    value = (value < 0 ? 0 : 10 * value) + next - '0';
  }
  return value;
}

// Raises std::runtime_error where the file is no such picture.
inline Ppm read_ppm(const std::string& path) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  const bool known = std::fgetc(file.get()) == 'P' && std::fgetc(file.get()) == '6';
  const int width = known ? number_in(file.get()) : -1, height = number_in(file.get());
  if (number_in(file.get()) != 255 || width < 1 || height < 1 || width > 32768 || height > 32768) {
    throw std::runtime_error(path + " is no binary PPM (P6) of 8 bits; make one with " +
                             "`convert picture.jpg picture.ppm`");
  }
  Ppm picture(width, height);
  if (std::fread(picture.rgb.data(), 1, picture.rgb.size(), file.get()) != picture.rgb.size()) {
    throw std::runtime_error(path + " is truncated");
  }
  return picture;
}

// Whole, or not at all; to what is no file, such as a pipe, at once.
inline void write_ppm(const Ppm& picture, const std::string& path) {
  const bool is_file = !std::filesystem::exists(path) || std::filesystem::is_regular_file(path);
  const std::string own = is_file ? path + ".part" : path;
  File file(std::fopen(own.c_str(), "wb"), std::fclose);
  if (!file) throw std::runtime_error(path + " cannot be written");
  std::fprintf(file.get(), "P6\n%d %d\n255\n", picture.width, picture.height);
  const size_t size = picture.rgb.size();
  bool written = std::fwrite(picture.rgb.data(), 1, size, file.get()) == size;
  written &= std::fclose(file.release()) == 0;
  std::error_code failed;
  if (written && is_file) std::filesystem::rename(own, path, failed);
  if (written && !failed) return;
  if (is_file) std::filesystem::remove(own, failed);
  throw std::runtime_error(path + " cannot be written: is the disk full?");
}
