// Finds objects with a package of `maskrcnn export --format torch` in libtorch.
//
// predict_torch model.pt2 photo.ppm  # prints label, score and box of the objects, and writes a mask for each
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdio>
#include <regex>

#include "picture.h"

using at::Tensor;

// A whole number of the config, such as "short_side": 800.
double setting(const std::string& config, const std::string& name) {
  std::smatch found;
  if (!std::regex_search(config, found, std::regex('"' + name + "\": (\\d+)")))
    throw std::runtime_error("expected a config with " + name + ", found none");
  return std::stod(found[1]);
}

// The weights (pixels, side) of the cells of a mask in the pixels of one axis of the image.
Tensor weights(int64_t pixels, double low, double high, int64_t side) {
  const Tensor place = (at::arange(pixels, at::kDouble) + 0.5 - low) * (side / (high - low)) - 0.5;
  return (1 - (place.unsqueeze(1) - at::arange(side, at::kDouble)).abs()).clamp_min(0).to(at::kFloat);
}

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: predict_torch model.pt2 photo.ppm");
  if (!dlopen(TORCHVISION_OPERATORS, RTLD_NOW)) throw std::runtime_error(dlerror());
  const c10::InferenceMode guard;
  Picture picture = read_ppm(words[2]);
  torch::inductor::AOTIModelPackageLoader model(words[1]);
  const std::string config = model.get_metadata().at("maskrcnn");

  const double height = picture.height, width = picture.width, divisor = setting(config, "divisor");
  const double scale = std::min(setting(config, "short_side") / std::min(height, width),
                                setting(config, "long_side") / std::max(height, width));
  const auto resized = [&](double pixels) { return std::max<int64_t>(1, std::floor(pixels * scale + 0.5)); };
  const auto padding = [&](int64_t pixels) { return int64_t(std::ceil(pixels / divisor) * divisor) - pixels; };
  const int64_t h = resized(height), w = resized(width);
  const Tensor image = at::from_blob(picture.rgb.data(), {1, picture.height, picture.width, 3}, at::kByte);
  const Tensor pixels = at::_upsample_bilinear2d_aa(image.permute({0, 3, 1, 2}).contiguous(), {h, w}, false);
  const auto found = model.run({at::constant_pad_nd(pixels, {0, padding(w), 0, padding(h)}),  // pixels
                                at::tensor({h, w}).unsqueeze(0),                              // sizes_hw
                                at::tensor({picture.height, picture.width}).unsqueeze(0),     // original_hw
                                at::tensor({float(width / w), float(height / h)}).unsqueeze(0)});  // scale_xy

  for (int64_t slot = 0; slot < found[1].size(1) && found[1][0][slot].item<float>() > 0; slot++) {
    const auto box = found[0][0][slot].contiguous();
    const auto edge = box.data_ptr<float>();
    const auto label = int(found[2][0][slot].item<int64_t>());
    std::printf("%d %.4f %.3f %.3f %.3f %.3f\n", label, found[1][0][slot].item<float>(), edge[0], edge[1], edge[2], edge[3]);
    const Tensor cells = found[3][0][slot];
    const Tensor rows = weights(picture.height, edge[1], edge[3], cells.size(0));
    const Tensor columns = weights(picture.width, edge[0], edge[2], cells.size(1));
    const Tensor mask = (rows.mm(cells).mm(columns.t()) >= 0.5).to(at::kByte).mul(255).contiguous();
    write_mask(slot, {mask.data_ptr<uint8_t>(), mask.data_ptr<uint8_t>() + mask.numel()}, picture);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
