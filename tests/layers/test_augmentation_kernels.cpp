// The random choices and the pixel kernel of AugmentedData by themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "caffe_layers/kernels/augmentation_choices.hpp"
#include "caffe_layers/kernels/crop_normalize.hpp"

namespace caffe_layers {
namespace {

// Pearson's statistic of counts that should all be equal.
double chi_squared(const std::vector<int>& counts) {
  const double expected = std::accumulate(counts.begin(), counts.end(), 0.0) / counts.size();
  double sum = 0;
  for (int count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

// A bound that a uniform choice exceeds once in about 10^5 (mean k - 1, variance 2 (k - 1), skewed tail).
double chi_squared_bound(size_t cells) {
  const double freedom = cells - 1;
  return freedom + 4.5 * std::sqrt(2 * freedom) + 12;
}

TEST(AugmentationChoicesTest, EpochOrderVisitsEveryRecordOnce) {
  for (const uint32_t records : {1u, 2u, 7u, 1000u, 50000u}) {
    for (uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<uint32_t> order = epoch_order(5, epoch, records);
      std::sort(order.begin(), order.end());
      for (uint32_t i = 0; i < records; ++i) ASSERT_EQ(order[i], i);
    }
  }
}

TEST(AugmentationChoicesTest, EpochOrderIsAFunctionOfSeedAndEpoch) {
  EXPECT_EQ(epoch_order(5, 3, 100), epoch_order(5, 3, 100));
  std::set<std::vector<uint32_t>> orders;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t epoch = 0; epoch < 10; ++epoch) orders.insert(epoch_order(seed, epoch, 100));
  }
  EXPECT_EQ(orders.size(), 100u);
}

TEST(AugmentationChoicesTest, AllOrdersAreEquallyLikely) {
  std::map<std::vector<uint32_t>, int> seen;
  for (uint64_t epoch = 0; epoch < 24000; ++epoch) ++seen[epoch_order(1, epoch, 4)];
  std::vector<int> counts;
  for (const auto& [order, count] : seen) counts.push_back(count);
  ASSERT_EQ(counts.size(), 24u);
  EXPECT_LT(chi_squared(counts), chi_squared_bound(24));
}

// Scale, rows, columns and flips: each uniform, and independent of each other, of the record and of the epoch.
TEST(AugmentationChoicesTest, ChoicesAreUniformAndIndependent) {
  const AugmentationRange range = {10, 12, 1, 9, true};
  std::map<std::vector<int>, int> seen;
  constexpr int kRecords = 400, kEpochs = 300;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    for (int record = 0; record < kRecords; ++record) {
      const Augmentation choice = choose_augmentation(range, 20, 30, RandomStream(7, epoch, record));
      ++seen[{choice.scale, choice.y, choice.x, choice.mirror}];
    }
  }
  for (int scale = 10; scale <= 12; ++scale) {
    const int places = scale + 2 - 9 + 1;
    std::vector<int> counts;
    for (int y = 0; y < places; ++y) {
      for (int x = 0; x < places; ++x) {
        for (int mirror = 0; mirror < 2; ++mirror) counts.push_back(seen[{scale, y, x, mirror}]);
      }
    }
    EXPECT_LT(chi_squared(counts), chi_squared_bound(counts.size())) << "scale " << scale;
    EXPECT_NEAR(std::accumulate(counts.begin(), counts.end(), 0), kRecords * kEpochs / 3, 5 * 164);  // 5 sigma
  }
}

TEST(AugmentationChoicesTest, NeighboursShareNothing) {
  const AugmentationRange range = {0, 0, 4, 32, true};
  std::vector<int> same_epoch(81), same_record(81);  // differences of corners between neighbours, modulo 9
  for (int i = 0; i < 40000; ++i) {
    const Augmentation a = choose_augmentation(range, 32, 32, RandomStream(1, 0, i));
    const Augmentation b = choose_augmentation(range, 32, 32, RandomStream(1, 0, i + 1));
    const Augmentation c = choose_augmentation(range, 32, 32, RandomStream(1, 1, i));
    ++same_epoch[(a.y - b.y + 9) % 9 * 9 + (a.x - b.x + 9) % 9];
    ++same_record[(a.y - c.y + 9) % 9 * 9 + (a.x - c.x + 9) % 9];
  }
  EXPECT_LT(chi_squared(same_epoch), chi_squared_bound(81));
  EXPECT_LT(chi_squared(same_record), chi_squared_bound(81));
}

TEST(AugmentationChoicesTest, CentreCropIsThatOfStockCaffe) {
  const Augmentation choice = centre_crop(6, 11, 8);
  EXPECT_EQ(choice.y, 2);
  EXPECT_EQ(choice.x, 1);
  EXPECT_EQ(choice.scale, 0);
  EXPECT_FALSE(choice.mirror);
}

template <typename Pixel>
std::vector<Pixel> some_pixels(int count) {
  std::vector<Pixel> pixels(count);
  for (int i = 0; i < count; ++i) pixels[i] = static_cast<Pixel>(i * 37 % 251);
  return pixels;
}

// Every window of every position around a small image, against a look-up pixel by pixel.
template <typename Pixel, typename Dtype>
void check_windows(bool interleaved, bool black) {
  constexpr int kHeight = 4, kWidth = 5, kChannels = 3;
  const std::vector<Pixel> pixels = some_pixels<Pixel>(kHeight * kWidth * kChannels);
  const Normalization<Dtype> normalization(101.5f, 33.25f, black);
  PlaneView<Pixel> plane = {pixels.data() + 20, kHeight, kWidth, kWidth, 1};
  if (interleaved) plane = {pixels.data() + 1, kHeight, kWidth, kWidth * kChannels, kChannels};
  std::vector<Dtype> top(6 * 7);
  for (const auto& [height, width] : {std::pair<int, int>{1, 1}, {3, 3}, {4, 5}, {6, 7}}) {
    for (int y = -7; y < 7; ++y) {
      for (int x = -8; x < 8; ++x) {
        for (bool mirror : {false, true}) {
          crop_normalize(plane, {y, x, height, width, mirror}, normalization, top.data());
          for (int row = 0; row < height; ++row) {
            for (int column = 0; column < width; ++column) {
              const int from_y = y + row, from_x = x + (mirror ? width - 1 - column : column);
              const bool inside = from_y >= 0 && from_y < kHeight && from_x >= 0 && from_x < kWidth;
              double expected = black ? -101.5 / 33.25 : 0;
              if (inside) {
                const double value = interleaved ? pixels[(from_y * kWidth + from_x) * kChannels + 1]
                                                 : pixels[20 + from_y * kWidth + from_x];
                expected = (value - 101.5) / 33.25;
              }
              ASSERT_EQ(top[row * width + column], static_cast<Dtype>(expected));
            }
          }
        }
      }
    }
  }
}

TEST(CropNormalizeTest, EveryWindowAgreesWithAPixelwiseLookUp) {
  for (bool interleaved : {false, true}) {
    for (bool black : {false, true}) {
      check_windows<unsigned char, float>(interleaved, black);
      check_windows<unsigned char, double>(interleaved, black);
      check_windows<float, float>(interleaved, black);
      check_windows<float, double>(interleaved, black);
    }
  }
}

}  // namespace
}  // namespace caffe_layers
