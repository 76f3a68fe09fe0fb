// Finds objects with a file of `maskrcnn export --with-resize` in ONNX Runtime.
//
// predict_onnx model.onnx photo.ppm  # prints label, score and box of the objects, and writes a mask for each
#include <onnxruntime_cxx_api.h>

#include <cstdio>

#include "picture.h"

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: predict_onnx model.onnx photo.ppm");
  Picture picture = read_ppm(words[2]);
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(env, words[1], Ort::SessionOptions());
  const int64_t shape[] = {picture.height, picture.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  Ort::Value image = Ort::Value::CreateTensor(memory, picture.rgb.data(), picture.rgb.size(), shape, 3);
  const char* inputs[] = {"image"};
  const char* outputs[] = {"boxes", "scores", "labels", "runs"};
  const auto found = session.Run(Ort::RunOptions(), inputs, &image, 1, outputs, 4);

  const auto *boxes = found[0].GetTensorData<float>(), *scores = found[1].GetTensorData<float>();
  const auto *labels = found[2].GetTensorData<int64_t>(), *runs = found[3].GetTensorData<int64_t>();
  const auto slots = found[1].GetTensorTypeAndShapeInfo().GetShape()[1];
  const auto stop = runs + 4 * found[3].GetTensorTypeAndShapeInfo().GetShape()[0];
  for (int64_t slot = 0; slot < slots && scores[slot] > 0; slot++) {
    const float* box = boxes + 4 * slot;
    std::printf("%d %.4f %.3f %.3f %.3f %.3f\n", int(labels[slot]), scores[slot], box[0], box[1], box[2], box[3]);
    std::vector<uint8_t> mask(picture.height * picture.width);
    for (; runs < stop && runs[1] == slot; runs += 4)  // image, detection, first pixel, stop pixel
      for (int64_t pixel = runs[2]; pixel < runs[3]; pixel++)  // down the columns
        mask[pixel % picture.height * picture.width + pixel / picture.height] = 255;
    write_mask(slot, mask, picture);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
