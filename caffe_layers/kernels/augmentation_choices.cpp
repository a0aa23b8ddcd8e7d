#include "caffe_layers/kernels/augmentation_choices.hpp"

#include <numeric>
#include <utility>

namespace caffe_layers {
namespace {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;
// Records are numbered with 32 bits, so this one's numbers are used by no image.
constexpr uint64_t kOrderOfEpoch = ~uint64_t{0};

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

RandomStream::RandomStream(uint64_t seed, uint64_t epoch, uint64_t record)
    : state_(mix(mix(mix(seed + kGoldenGamma) + kGoldenGamma * epoch) + kGoldenGamma * record)) {}

uint64_t RandomStream::Next() { return mix(state_ += kGoldenGamma); }

uint64_t RandomStream::Below(uint64_t n) { return static_cast<unsigned __int128>(Next()) * n >> 64; }

std::vector<uint32_t> epoch_order(uint64_t seed, uint64_t epoch, uint32_t records) {
  std::vector<uint32_t> order(records);
  std::iota(order.begin(), order.end(), 0u);
  RandomStream random(seed, epoch, kOrderOfEpoch);
  for (uint32_t i = records; i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);  // Fisher and Yates
  return order;
}

Augmentation choose_augmentation(const AugmentationRange& range, int height, int width, RandomStream random) {
  Augmentation choice{};
  if (range.max_scale > 0) {
    choice.scale = range.min_scale + static_cast<int>(random.Below(range.max_scale - range.min_scale + 1));
    height = width = choice.scale;
  }
  if (range.crop > 0) {
    choice.y = static_cast<int>(random.Below(height + 2 * range.pad - range.crop + 1));
    choice.x = static_cast<int>(random.Below(width + 2 * range.pad - range.crop + 1));
  }
  choice.mirror = range.mirror && random.Below(2) == 1;
  return choice;
}

Augmentation centre_crop(int crop, int height, int width) {
  if (crop == 0) return {};
  return {0, (height - crop) / 2, (width - crop) / 2, false};
}

}  // namespace caffe_layers
