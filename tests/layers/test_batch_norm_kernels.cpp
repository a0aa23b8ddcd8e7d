// Every batch norm kernel of the table that runs here against the reference, at the edges of vectors and blocks.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "caffe_layers/kernels/batch_norm_kernels.hpp"
#include "gtest/gtest.h"

namespace caffe_layers {
namespace {

struct Options {
  bool residual, relu, batch_statistics, in_place;
};

/// One forward and backward pass on random data, with memory of its own.
template <typename T>
struct Passes {
  std::vector<T> x, residual, gamma, beta, mean, variance, y, y_diff, x_diff, residual_diff, gamma_diff, beta_diff;

  Passes(const BatchNormKernel<T>& kernel, const BatchNormShape& shape, const Options& o, T offset = 1) {
    std::minstd_rand random(1 + shape.num + 100 * shape.channels + 10000 * shape.spatial);
    const auto fill = [&](size_t n, double mean, double spread) {
      std::uniform_real_distribution<float> uniform(-2, 2);
      std::vector<T> values(n);
      for (T& value : values) value = T(mean + spread * uniform(random));
      return values;
    };
    const size_t count = size_t(shape.num) * shape.channels * shape.spatial, channels = shape.channels;
    x = fill(count, offset, 1);
    residual = fill(count, 0, 1);
    gamma = fill(channels, 1, 0.2);
    beta = fill(channels, 0, 0.2);
    mean = fill(channels, 1, 0.2);
    variance.assign(channels, T(1.5));
    y_diff = fill(count, 0.2, 1);
    gamma_diff = fill(channels, 0, 1);
    beta_diff = fill(channels, 0, 1);
    y = x_diff = residual_diff = std::vector<T>(count, T(99));

    const T eps = T(1e-5);
    kernel.forward({shape, x.data(), o.residual ? residual.data() : nullptr, gamma.data(), beta.data(), eps, o.relu,
                    o.batch_statistics, mean.data(), variance.data(), y.data()});
    kernel.backward({shape, x.data(), y.data(), o.residual, gamma.data(), beta.data(), eps, o.relu, o.batch_statistics,
                     mean.data(), variance.data(), y_diff.data(), o.in_place ? y_diff.data() : x_diff.data(),
                     o.residual ? residual_diff.data() : nullptr, gamma_diff.data(), beta_diff.data()});
  }

  std::vector<const std::vector<T>*> results() const {
    return {&mean, &variance, &y, &y_diff, &x_diff, &residual_diff, &gamma_diff, &beta_diff};
  }
};

const char* const kResultNames[] = {"mean",
                                    "variance",
                                    "y",
                                    "gradient of y or x",
                                    "gradient of x",
                                    "gradient of the residual",
                                    "gradient of gamma",
                                    "gradient of beta"};

std::vector<BatchNormShape> Shapes() {
  std::vector<BatchNormShape> shapes;
  for (const int spatial : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100})
    for (const int channels : {1, 5})
      for (const int num : {1, 3}) shapes.push_back({num, channels, spatial});
  // A page per image and channel, and more than one tile of a sum.
  for (const int spatial : {1023, 1024, 1025, 4096, 4100}) shapes.push_back({2, 2, spatial});
  // Blocks of channels: below, at and above their largest size, and an odd last one.
  for (const int channels : {31, 32, 33, 64, 67, 129}) {
    shapes.push_back({2, channels, 1});
    shapes.push_back({3, channels, 20});
  }
  shapes.push_back({2, 67, 256});  // enough work for several threads
  return shapes;
}

template <typename T>
void ExpectNear(const Passes<T>& expected, const Passes<T>& actual, double values) {
  const double tolerance = sizeof(T) == 4 ? 3e-5 : 1e-12;
  for (size_t r = 0; r < expected.results().size(); ++r) {
    const std::vector<T>&e = *expected.results()[r], &a = *actual.results()[r];
    const double scale = r >= 6 ? std::sqrt(values) : 1;  // sums over a channel carry the rounding of all its values
    for (size_t i = 0; i < e.size(); ++i) {
      const double bound = tolerance * scale * std::max(1.0, std::abs(double(e[i])));
      if (!(std::abs(e[i] - a[i]) <= bound)) FAIL() << kResultNames[r] << "[" << i << "]: " << a[i] << " for " << e[i];
    }
  }
}

template <typename T>
void CompareWithReference() {
  for (const BatchNormShape& shape : Shapes()) {
    for (int flags = 0; flags < 16; ++flags) {
      const Options o = {bool(flags & 1), bool(flags & 2), bool(flags & 4), bool(flags & 8)};
      const int values = shape.num * shape.spatial;
      // Two values of a channel give a normalised +-1 whose gradient is all cancellation: eps decides.
      if (o.batch_statistics && values < 6) continue;
      const Passes<T> expected(reference_batch_norm_kernel<T>(), shape, o);
      for (const auto& kernel : batch_norm_kernels<T>()) {
        if (!kernel.runs_here()) continue;
        std::ostringstream title;
        title << kernel.name << ", " << shape.num << " x " << shape.channels << " x " << shape.spatial << ", " << flags;
        SCOPED_TRACE(title.str());
        ExpectNear(expected, Passes<T>(kernel, shape, o), values);
      }
    }
  }
}

TEST(BatchNormKernelsTest, TestFloatEqualsReference) { CompareWithReference<float>(); }
TEST(BatchNormKernelsTest, TestDoubleEqualsReference) { CompareWithReference<double>(); }

/// A large tensor is written past the caches; where it does not start at a vector, it is not.
TEST(BatchNormKernelsTest, TestLargeTensorsEqualReference) {
  const BatchNormShape shape = {33, 64, 1024};
  const size_t count = size_t(shape.num) * shape.channels * shape.spatial;
  std::vector<float> x(count), gamma(64, 1.5f), beta(64, -0.1f), mean(64), variance(64);
  for (size_t i = 0; i < count; ++i) x[i] = float(i * 2654435761u % 1000) / 500 - 1;
  float* memory = static_cast<float*>(aligned_alloc(64, (count + 16) * sizeof(float)));
  std::vector<float> expected(count);
  const auto forward = [&](const BatchNormKernel<float>& kernel, float* y) {
    kernel.forward(
        {shape, x.data(), nullptr, gamma.data(), beta.data(), 1e-5f, true, true, mean.data(), variance.data(), y});
  };
  forward(reference_batch_norm_kernel<float>(), expected.data());
  for (const auto& kernel : batch_norm_kernels<float>()) {
    if (!kernel.runs_here()) continue;
    for (float* y : {memory, memory + 1}) {
      std::fill(y, y + count, 99.f);
      forward(kernel, y);
      size_t wrong = 0;
      for (size_t i = 0; i < count; ++i) wrong += !(std::abs(y[i] - expected[i]) < 1e-5f);
      EXPECT_EQ(0, wrong) << kernel.name << (y == memory ? " aligned" : " not aligned");
    }
  }
  free(memory);
}

TEST(BatchNormKernelsTest, TestTableEndsWithReference) {
  EXPECT_STREQ("reference", batch_norm_kernels<float>().back().name);
  EXPECT_TRUE(pick_batch_norm_kernel<float>().runs_here());
  EXPECT_STRNE("reference", pick_batch_norm_kernel<float>().name);
}

TEST(BatchNormKernelsTest, TestResultsDoNotDependOnThreads) {
  const Options o = {true, true, true, false};
  const int threads = omp_get_max_threads();
  for (const auto& kernel : batch_norm_kernels<float>()) {
    if (!kernel.runs_here()) continue;
    for (const BatchNormShape shape :
         {BatchNormShape{8, 37, 64}, BatchNormShape{4, 5, 1024}, BatchNormShape{3, 2, 4096}}) {
      omp_set_num_threads(1);
      const Passes<float> one(kernel, shape, o);
      for (const int n : {2, 3, 8}) {
        omp_set_num_threads(n);
        const Passes<float> several(kernel, shape, o);
        for (size_t r = 0; r < one.results().size(); ++r)
          EXPECT_EQ(*one.results()[r], *several.results()[r]) << kernel.name << ", " << kResultNames[r] << ", " << n;
      }
    }
  }
  omp_set_num_threads(threads);
}

/// Variance of values far from zero: the naive E(x^2) - E(x)^2 in float would be off by orders of magnitude here.
TEST(BatchNormKernelsTest, TestVarianceFarFromZero) {
  for (const auto& kernel : batch_norm_kernels<float>()) {
    if (!kernel.runs_here()) continue;
    const BatchNormShape shape = {16, 3, 1024};
    const Passes<float> passes(kernel, shape, {false, false, true, false}, 1e4f);
    for (int c = 0; c < shape.channels; ++c) {
      double sum = 0, squares = 0;
      const double m = double(shape.num) * shape.spatial;
      for (int pass = 0; pass < 2; ++pass)
        for (int n = 0; n < shape.num; ++n)
          for (int s = 0; s < shape.spatial; ++s) {
            const double value = passes.x[(size_t(n) * shape.channels + c) * shape.spatial + s];
            if (pass == 0)
              sum += value;
            else
              squares += (value - sum / m) * (value - sum / m);
          }
      EXPECT_NEAR(squares / m, passes.variance[c], 1e-5) << kernel.name;
      EXPECT_NEAR(sum / m, passes.mean[c], 1e-3) << kernel.name;  // a float near 10^4 is a multiple of 0.001
    }
  }
}

}  // namespace
}  // namespace caffe_layers
