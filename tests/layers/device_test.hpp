#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/test/test_caffe_main.hpp"

namespace caffe_layers_test {

/// Is there a device of the kind that `TypeParam` (Caffe's CPUDevice or GPUDevice) names?
template <typename TypeParam>
bool device_available() {
#ifndef CPU_ONLY
  int count = 0;
  if (TypeParam::device == caffe::Caffe::GPU) return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
#endif
  return true;
}

/// First line of a test typed over TestDtypesAndDevices: ends it with a clear line where its device is missing.
#define SKIP_WITHOUT_DEVICE()                                        \
  if (!caffe_layers_test::device_available<TypeParam>()) {           \
    std::cout << "[  SKIPPED ] no GPU on this machine" << std::endl; \
    return;                                                          \
  }

/// Uniform values in [-1, 1] that depend on nothing but seed and count.
template <typename T>
std::vector<T> random_values(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<T> values(count);
  for (T& value : values) value = uniform(engine);
  return values;
}

template <typename Dtype>
void fill_random(unsigned seed, caffe::Blob<Dtype>* blob) {
  const std::vector<Dtype> values = random_values<Dtype>(blob->count(), seed);
  std::copy(values.begin(), values.end(), blob->mutable_cpu_data());
}

/// Largest error relative to the largest expected value that rounding explains.
template <typename T>
double rounding_tolerance() {
  return 200 * std::numeric_limits<T>::epsilon();
}

/// Expects all values equal to within `tolerance` times the largest expected one; a NaN fails.
template <typename A, typename E>
void expect_close(const A* actual, const E* expected, size_t count, double tolerance, const std::string& what) {
  double scale = 0, worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < count; ++i) {
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(error <= worst)) {
      worst = error;
      where = i;
      if (std::isnan(error)) break;
    }
  }
  EXPECT_TRUE(worst <= tolerance * scale) << what << ": value " << where << " of " << count << " is " << actual[where]
                                          << " instead of " << expected[where] << "; largest expected value " << scale;
}

}  // namespace caffe_layers_test
