#pragma once

#include <cstdint>
#include <vector>

namespace caffe_layers {

/// Random numbers that are a function of (seed, epoch, record) alone, so that every thread, every rank and every
/// resumed run draws the same ones: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014), started from a hash of the three.
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t epoch, uint64_t record);
  uint64_t Next();
  /// Uniform in 0 .. n-1 up to a bias of n / 2^64.
  uint64_t Below(uint64_t n);

 private:
  uint64_t state_;
};

/// The order in which an epoch visits `records` records: a uniform permutation of 0 .. records-1, a function of (seed,
/// epoch) alone.
std::vector<uint32_t> epoch_order(uint64_t seed, uint64_t epoch, uint32_t records);

/// What an image may be turned into. Scaling is off where max_scale is 0.
struct AugmentationRange {
  int min_scale = 0, max_scale = 0;
  int pad = 0;
  int crop = 0;  // 0: the whole image
  bool mirror = false;
};

/// One choice out of the range. y and x are the crop's corner in the padded image.
struct Augmentation {
  int scale;  // side of the scaled image, 0: not scaled
  int y, x;
  bool mirror;
};

/// Uniform choice for an image of height x width, which must hold the crop once scaled and padded.
Augmentation choose_augmentation(const AugmentationRange& range, int height, int width, RandomStream random);

/// The centre crop, rounded to the upper left as stock Caffe does: the TEST phase's only choice.
Augmentation centre_crop(int crop, int height, int width);

}  // namespace caffe_layers
