// Pictures as PPM files (P6) and masks as PGM files (P5). They are not compressed, so that reading them needs no library.
#pragma once
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int64_t height, width;
  std::vector<uint8_t> rgb;  // row by row
};

inline Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t width = 0, height = 0, highest = 0;
  file >> kind >> width >> height >> highest;
  file.get();  // the blank after the header
  if (!file || kind != "P6" || highest != 255)
    throw std::runtime_error(path + ": expected a PPM file (P6) with 8 bits in each channel");
  Picture picture{height, width, std::vector<uint8_t>(3 * height * width)};
  if (!file.read(reinterpret_cast<char*>(picture.rgb.data()), picture.rgb.size()))
    throw std::runtime_error(path + ": expected a whole PPM file, found the beginning of one");
  return picture;
}

inline void write_mask(int64_t number, const std::vector<uint8_t>& mask, const Picture& picture) {
  std::ofstream file("mask_" + std::to_string(number) + ".pgm", std::ios::binary);
  file << "P5\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(mask.data()), mask.size());
}
