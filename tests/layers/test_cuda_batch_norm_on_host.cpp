// Emulation, not a GPU run: the CUDA batch norm, compiled for the host (cuda_on_host/cuda_runtime.h), against the
// reference. Builds with CUDA test the real kernels through the layer instead.
#ifdef CPU_ONLY

#include <cuda_runtime.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "caffe_layers/kernels/batch_norm_cuda.hpp"
#include "caffe_layers/kernels/batch_norm_kernels.hpp"
#include "gtest/gtest.h"

namespace caffe_layers {

namespace {

struct Options {
  bool residual, relu, batch_statistics;
  /// x's gradient takes the place of y's.
  bool in_place;
  /// Only the parameters' gradients, or only the data's.
  bool parameters, data;
};

constexpr double kFraction = 0.9;

/// A forward and a backward pass and all they read and write.
template <typename T>
struct Passes {
  BatchNormShape shape;
  Options options;
  std::vector<T> x, residual, gamma, beta, moving_mean, moving_variance, moving_factor, y_diff;
  std::vector<T> mean, variance, y, x_diff, residual_diff, gamma_diff, beta_diff;

  Passes(const BatchNormShape& shape, const Options& options, T offset) : shape(shape), options(options) {
    std::mt19937 random(3);
    const auto fill = [&random](size_t count, T low, T high) {
      std::uniform_real_distribution<T> uniform(low, high);
      std::vector<T> values(count);
      for (T& value : values) value = uniform(random);
      return values;
    };
    const size_t count = size_t(shape.num) * shape.channels * shape.spatial, channels = shape.channels;
    x = fill(count, offset - 2, offset + 2);
    residual = fill(count, -1, 1);
    gamma = fill(channels, T(0.5), 2);
    beta = fill(channels, -1, 1);
    moving_mean = fill(channels, offset * 3, offset * 3 + 1);
    moving_variance = fill(channels, 1, 3);
    moving_factor = {3};
    y_diff = fill(count, -1, 1);
    gamma_diff = fill(channels, -1, 1);
    beta_diff = fill(channels, -1, 1);
    mean = variance = std::vector<T>(channels, std::numeric_limits<T>::quiet_NaN());
    y = x_diff = residual_diff = std::vector<T>(count, std::numeric_limits<T>::quiet_NaN());
  }

  BatchNormForward<T> forward() {
    return {shape,
            x.data(),
            options.residual ? residual.data() : nullptr,
            gamma.data(),
            beta.data(),
            T(1e-5),
            options.relu,
            options.batch_statistics,
            mean.data(),
            variance.data(),
            y.data()};
  }

  BatchNormBackward<T> backward() {
    T* to = options.in_place ? y_diff.data() : x_diff.data();
    return {shape,
            x.data(),
            y.data(),
            options.residual,
            gamma.data(),
            beta.data(),
            T(1e-5),
            options.relu,
            options.batch_statistics,
            mean.data(),
            variance.data(),
            y_diff.data(),
            options.data ? to : nullptr,
            options.residual && options.data ? residual_diff.data() : nullptr,
            options.parameters ? gamma_diff.data() : nullptr,
            options.parameters ? beta_diff.data() : nullptr};
  }

  void run_reference() {
    for (int c = 0; c < shape.channels; ++c) {  // overwritten with batch statistics
      mean[c] = moving_mean[c] / moving_factor[0];
      variance[c] = moving_variance[c] / moving_factor[0];
    }
    reference_batch_norm_kernel<T>().forward(forward());
    if (options.batch_statistics) {
      const T m = T(shape.num) * shape.spatial;
      for (int c = 0; c < shape.channels; ++c) {
        moving_mean[c] = T(kFraction) * moving_mean[c] + mean[c];
        moving_variance[c] = T(kFraction) * moving_variance[c] + variance[c] * (m > 1 ? m / (m - 1) : 1);
      }
      moving_factor[0] = T(kFraction) * moving_factor[0] + 1;
    }
    reference_batch_norm_kernel<T>().backward(backward());
  }

  void run_emulated() {
    forward_emulated(forward());
    std::vector<double> workspace = make_workspace();
    batch_norm_backward_cuda(backward(), workspace.data(), nullptr);
  }

  void forward_emulated(const BatchNormForward<T>& pass) {
    std::vector<double> workspace = make_workspace();
    const MovingStatistics<T> moving = {moving_mean.data(), moving_variance.data(), moving_factor.data(), T(kFraction)};
    batch_norm_forward_cuda(pass, moving, workspace.data(), nullptr);
  }

  std::vector<double> make_workspace() const {
    return std::vector<double>(batch_norm_workspace_bytes_cuda(shape) / sizeof(double), std::nan(""));
  }

  std::vector<std::pair<const char*, const std::vector<T>*>> results() const {
    return {{"mean", &mean},
            {"variance", &variance},
            {"moving mean", &moving_mean},
            {"moving variance", &moving_variance},
            {"moving factor", &moving_factor},
            {"y", &y},
            {"gradient of x", options.in_place ? &y_diff : &x_diff},
            {"gradient of the residual", &residual_diff},
            {"gradient of gamma", &gamma_diff},
            {"gradient of beta", &beta_diff}};
  }
};

/// Relative to the largest value. A few float values near the ReLU's edge may fall on either side of it.
template <typename T>
void expect_near(const Passes<T>& expected, const Passes<T>& actual, double tolerance) {
  const auto wanted = expected.results(), got = actual.results();
  for (size_t r = 0; r < wanted.size(); ++r) {
    const std::vector<T>&a = *wanted[r].second, &b = *got[r].second;
    double scale = 1;
    for (T value : a) scale = std::max<double>(scale, std::isnan(value) ? 0 : std::abs(value));
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::isnan(a[i]) && std::isnan(b[i])) continue;  // not asked for
      ASSERT_LE(std::abs(a[i] - b[i]), tolerance * scale)
          << wanted[r].first << "[" << i << "]: " << a[i] << ", " << b[i];
    }
  }
}

const BatchNormShape kShapes[] = {{2, 3, 64},  {3, 5, 35},   {4, 7, 1},   {1, 2, 1},
                                  {2, 33, 16}, {1, 1, 3000}, {20, 2, 256}};

template <typename T>
void compare(const Options& options, T offset, double tolerance) {
  for (const BatchNormShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape.num << " x " << shape.channels << " x " << shape.spatial << ", residual "
                                    << options.residual << ", relu " << options.relu << ", batch statistics "
                                    << options.batch_statistics);
    Passes<T> expected(shape, options, offset), actual = expected;
    expected.run_reference();
    actual.run_emulated();
    expect_near(expected, actual, tolerance);
  }
}

TEST(CudaBatchNormOnHostTest, MatchesReference) {
  for (int bits = 0; bits < 16; ++bits) {
    const Options options = {bool(bits & 1), bool(bits & 2), bool(bits & 4), bool(bits & 8), true, true};
    compare<double>(options, 1, 1e-12);
    if (options.batch_statistics && !options.in_place) compare<float>(options, 1, 2e-5);
  }
}

TEST(CudaBatchNormOnHostTest, GradientsNotAskedForAreLeftAlone) {
  compare<double>({true, true, true, false, true, false}, 1, 1e-12);
  compare<double>({true, true, true, false, false, true}, 1, 1e-12);
}

/// Mean 1000, standard deviation 1: the mean of squares minus the square of the mean would have no correct digit.
TEST(CudaBatchNormOnHostTest, KeepsPrecisionFarFromZero) {
  compare<float>({false, false, true, false, true, true}, 1000, 2e-4);
}

/// The values that sums and squares could be taken around: all others are far from them.
TEST(CudaBatchNormOnHostTest, KeepsPrecisionBesideOutliers) {
  const BatchNormShape shape = {1, 1, 1 << 20};
  const Options options = {false, false, true, false, true, true};
  Passes<float> actual(shape, options, 0);
  std::fill_n(actual.x.begin(), 4, 1e5f);
  actual.forward_emulated(actual.forward());
  Passes<double> expected(shape, options, 0);
  expected.x.assign(actual.x.begin(), actual.x.end());
  reference_batch_norm_kernel<double>().forward(expected.forward());
  EXPECT_NEAR(actual.variance[0] / expected.variance[0], 1, 1e-6);
  EXPECT_NEAR(actual.mean[0], expected.mean[0], 1e-6);
}

/// In the place of x no block may read what another has overwritten.
TEST(CudaBatchNormOnHostTest, WritesInThePlaceOfXOrResidual) {
  for (const BatchNormShape& shape : kShapes) {
    Passes<float> apart(shape, {true, true, true, false, true, true}, 1), on_x = apart, on_residual = apart;
    BatchNormForward<float> pass = on_x.forward();
    pass.y = on_x.x.data();
    on_x.forward_emulated(pass);
    pass = on_residual.forward();
    pass.y = on_residual.residual.data();
    on_residual.forward_emulated(pass);
    apart.forward_emulated(apart.forward());
    EXPECT_EQ(apart.y, on_x.x);
    EXPECT_EQ(apart.y, on_residual.residual);
  }
}

/// A missing barrier would let the order of threads show.
TEST(CudaBatchNormOnHostTest, OrderOfThreadsDoesNotMatter) {
  for (const BatchNormShape& shape : kShapes) {
    Passes<float> expected(shape, {true, true, true, false, true, true}, 1.f);
    for (const cuda_on_host::Order order : {cuda_on_host::Order::kBackward, cuda_on_host::Order::kShuffled}) {
      Passes<float> forward = expected, other = expected;
      forward.run_emulated();
      cuda_on_host::order = order;
      other.run_emulated();
      cuda_on_host::order = cuda_on_host::Order::kForward;
      expect_near(forward, other, 0);
    }
  }
}

}  // namespace

}  // namespace caffe_layers

#endif  // CPU_ONLY
