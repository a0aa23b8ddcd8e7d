// Emulation, not a GPU run: the CUDA kernels' source, compiled for the host (cuda_on_host/cuda_runtime.h), against the
// reference. It needs no device and says nothing about speed. Builds with CUDA test the real kernels instead.
#ifdef CPU_ONLY

#include <cuda_runtime.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "caffe_layers/kernels/group_convolution_cuda.hpp"
#include "gtest/gtest.h"

namespace caffe_layers {

namespace {

using cuda_on_host::Order;

template <typename T>
std::vector<T> random_values(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<T> uniform(-1, 1);
  std::vector<T> values(count);
  for (T& value : values) value = uniform(random);
  return values;
}

std::vector<int> random_permutation(int channels, unsigned seed) {
  std::vector<int> perm(channels);
  std::iota(perm.begin(), perm.end(), 0);
  std::shuffle(perm.begin(), perm.end(), std::mt19937(seed));
  return perm;
}

/// Sets what the emulated device has, for one test.
class CudaOnHostTest : public ::testing::Test {
 protected:
  void TearDown() override {
    cuda_on_host::order = Order::kForward;
    cuda_on_host::shared_bytes_per_block = 227 * 1024;
    cuda_on_host::multiprocessors = 4;
  }
};

struct StageSpec {
  int out_channels, group, kernel = 1, stride = 1, pad = 0, dilation = 1;
  bool bias = false;
};

struct ChainSpec {
  const char* name;
  int batch, channels, height, width;
  std::vector<StageSpec> stages;
};

GroupConvolutionChain make_chain(const ChainSpec& spec) {
  GroupConvolutionChain chain;
  chain.batch = spec.batch;
  int channels = spec.channels, height = spec.height, width = spec.width;
  for (const StageSpec& s : spec.stages) {
    const int span = s.dilation * (s.kernel - 1) + 1;
    const int out_height = (height + 2 * s.pad - span) / s.stride + 1,
              out_width = (width + 2 * s.pad - span) / s.stride + 1;
    chain.stages.push_back({channels, s.out_channels, s.group, s.kernel, s.stride, s.pad, s.dilation, height, width,
                            out_height, out_width, s.bias, random_permutation(channels, chain.stages.size())});
    channels = s.out_channels;
    height = out_height;
    width = out_width;
  }
  chain.output_channel = random_permutation(channels, 99);
  return chain;
}

/// Shapes of the paper's networks, cut down in batch and channels, and shapes at and around the tiles' edges.
const std::vector<ChainSpec> kChains = {
    {"igcv2 stage 1", 2, 16, 32, 32, {{16, 16, 3, 1, 1}, {16, 4}, {16, 4}}},
    {"igcv2 stage 3", 1, 32, 8, 8, {{32, 32, 3, 1, 1}, {32, 2}, {32, 2}}},
    {"igcv2 transition", 2, 16, 16, 16, {{16, 16, 3, 2, 1}, {32, 8}, {32, 8}}},
    {"igcv2 I", 2, 18, 8, 8, {{18, 9, 3, 1, 1}, {18, 6}, {18, 6}}},
    {"igcv2 star", 1, 27, 8, 8, {{27, 27, 3, 1, 1}, {27, 9}, {27, 9}, {27, 9}, {27, 9}}},
    {"igcv1", 1, 24, 16, 16, {{24, 6, 3, 1, 1}, {24, 4}}},
    {"xception", 2, 11, 16, 16, {{11, 11, 3, 1, 1}, {11, 1}}},
    {"xception transition", 1, 11, 32, 32, {{11, 11, 3, 2, 1}, {22, 1}}},
    {"projection", 1, 16, 16, 16, {{32, 8, 1, 2}}},
    {"projection of odd maps", 2, 6, 13, 15, {{8, 2, 1, 2}}},
    {"projection of every third", 2, 4, 8, 7, {{4, 2, 1, 3}, {6, 2}}},
    {"dense 1x1", 1, 20, 8, 8, {{12, 1}}},
    {"two 1x1", 2, 12, 5, 7, {{24, 3}, {8, 2}}},
    {"first convolution", 2, 3, 32, 32, {{8, 1, 3, 1, 1}}},
    {"all biases", 2, 8, 8, 8, {{16, 8, 3, 1, 1, 1, true}, {8, 4, 1, 1, 0, 1, true}, {12, 4, 1, 1, 0, 1, true}}},
    {"biased 1x1", 3, 6, 5, 5, {{9, 3, 1, 1, 0, 1, true}}},
    {"1x1 map", 5, 8, 1, 1, {{8, 8, 3, 1, 1}, {8, 2}}},
    {"5x7 map", 2, 8, 5, 7, {{8, 8, 3, 1, 1}, {8, 2}}},
    {"13x13 map", 2, 6, 13, 13, {{6, 6, 3, 1, 1}, {6, 2}, {6, 3}}},
    {"12x20 map", 1, 4, 12, 20, {{4, 4, 3, 1, 1}, {4, 2}}},
    {"64x64 map", 1, 4, 64, 64, {{4, 4, 3, 1, 1}, {4, 2}, {4, 2}}},
    {"odd rows", 1, 4, 7, 8, {{4, 4, 3, 1, 1}, {4, 2}}},
    {"stride 2 odd rows", 1, 4, 7, 16, {{4, 2, 3, 2, 1}, {4, 2}}},
    {"stride 2 odd map", 2, 4, 13, 13, {{8, 4, 3, 2, 1}, {4, 2}}},
    {"5x5 stride 3 dilation 2", 2, 6, 17, 19, {{4, 2, 5, 3, 2, 2, true}, {6, 2}}},
    {"padded 1x1", 1, 4, 6, 6, {{4, 2, 1, 1, 2}, {4, 2}}},
    {"7x7", 1, 3, 9, 9, {{6, 3, 7, 1, 3}}},
    {"two spatial stages", 2, 6, 9, 8, {{6, 6, 3, 1, 1, 1, true}, {12, 3, 1}, {6, 2, 3, 2, 1, 1, true}}},
    {"1x1 stride in the middle", 2, 6, 8, 8, {{6, 6, 3, 1, 1}, {6, 2, 1, 2}}},
};

template <typename T>
struct Problem {
  GroupConvolutionChain chain;
  std::vector<int> tables;
  std::vector<T> bottom, top_diff, residual, skip_diff;
  bool add_residual = false, bottom_relu = false;
  const T* skip = nullptr;
  std::vector<std::vector<T>> weight, bias;
  ChainParameters<T> parameters;

  const T* added() const { return add_residual ? residual.data() : nullptr; }

  explicit Problem(const ChainSpec& spec) : chain(make_chain(spec)), tables(channel_tables(chain)) {
    const GroupConvolutionStage &first = chain.stages.front(), &last = chain.stages.back();
    bottom = random_values<T>(size_t(chain.batch) * first.in_channels * first.in_height * first.in_width, 1);
    top_diff = random_values<T>(size_t(chain.batch) * last.out_channels * last.out_height * last.out_width, 2);
    residual = random_values<T>(top_diff.size(), 7);
    skip_diff = random_values<T>(bottom.size() + 1, 8);
    for (const GroupConvolutionStage& s : chain.stages) {
      weight.push_back(random_values<T>(size_t(s.out_channels) * s.in_channels / s.group * s.kernel * s.kernel, 3));
      bias.push_back(random_values<T>(s.out_channels, 4));
    }
    for (size_t s = 0; s < chain.stages.size(); ++s) {
      parameters.weight.push_back(weight[s].data());
      parameters.bias.push_back(chain.stages[s].bias ? bias[s].data() : nullptr);
    }
  }
};

/// Gradients, in memory that says when something was left out or not added to.
template <typename T>
struct Results {
  std::vector<T> top, bottom_diff;
  std::vector<std::vector<T>> weight_diff, bias_diff;

  explicit Results(const Problem<T>& p)
      : top(p.top_diff.size(), std::numeric_limits<T>::quiet_NaN()),
        bottom_diff(p.bottom.size(), std::numeric_limits<T>::quiet_NaN()) {
    for (const auto& w : p.weight) weight_diff.emplace_back(w.size(), T(0.5));
    for (const auto& b : p.bias) bias_diff.emplace_back(b.size(), T(0.5));
  }

  /// `asked`: bit 0 bottom, bit 1 weights, bit 2 biases.
  ChainGradients<T> gradients(const Problem<T>& p, int asked) {
    ChainGradients<T> g;
    g.bottom = asked & 1 ? bottom_diff.data() : nullptr;
    g.skip = p.skip;
    g.bottom_relu = p.bottom_relu;
    for (size_t s = 0; s < weight_diff.size(); ++s) {
      g.weight.push_back(asked & 2 ? weight_diff[s].data() : nullptr);
      g.bias.push_back(asked & 4 && p.chain.stages[s].bias ? bias_diff[s].data() : nullptr);
    }
    return g;
  }
};

constexpr int kBottom = 1, kAll = 7;

template <typename T>
Results<T> run_reference(const Problem<T>& p, int asked) {
  const GroupConvolutionKernel<T>& kernel = group_convolution_kernels<T>().back();
  Results<T> r(p);
  std::vector<char> workspace(kernel.workspace_bytes(p.chain, true));
  kernel.forward(p.chain, p.bottom.data(), p.parameters, {r.top.data(), p.added()}, workspace.data());
  kernel.backward(p.chain, p.bottom.data(), p.parameters, p.top_diff.data(), r.gradients(p, asked), workspace.data());
  return r;
}

template <typename T>
Results<T> run_emulated(const CudaGroupConvolutionKernel<T>& kernel, const Problem<T>& p, int asked) {
  Results<T> r(p);
  for (const bool backward : {false, true}) {
    const size_t values = kernel.workspace_bytes(p.chain, backward) / sizeof(T);
    std::vector<T> workspace(values, std::numeric_limits<T>::quiet_NaN());
    if (backward) {
      kernel.backward(p.chain, p.tables.data(), p.bottom.data(), p.parameters, p.top_diff.data(), r.gradients(p, asked),
                      workspace.data(), nullptr);
    } else {
      kernel.forward(p.chain, p.tables.data(), p.bottom.data(), p.parameters, {r.top.data(), p.added()},
                     workspace.data(), nullptr);
    }
  }
  return r;
}

template <typename T>
void expect_near(const std::vector<T>& expected, const std::vector<T>& actual, const std::string& what) {
  ASSERT_EQ(expected.size(), actual.size());
  T scale = 1;
  for (T value : expected) scale = std::max(scale, std::isnan(value) ? T(0) : std::abs(value));
  const T tolerance = scale * (sizeof(T) == 4 ? T(1e-5) : T(1e-13));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(expected[i]) && std::isnan(actual[i])) continue;  // not asked for
    ASSERT_LE(std::abs(expected[i] - actual[i]), tolerance)
        << what << "[" << i << "]: expected " << expected[i] << ", got " << actual[i];
  }
}

template <typename T>
void expect_near(const Results<T>& expected, const Results<T>& actual) {
  expect_near(expected.top, actual.top, "top");
  expect_near(expected.bottom_diff, actual.bottom_diff, "bottom gradient");
  for (size_t s = 0; s < expected.weight_diff.size(); ++s) {
    const std::string stage = " of stage " + std::to_string(s + 1);
    expect_near(expected.weight_diff[s], actual.weight_diff[s], "weight gradient" + stage);
    expect_near(expected.bias_diff[s], actual.bias_diff[s], "bias gradient" + stage);
  }
}

/// Every kernel, with the residual's addition, the ReLU, and both.
template <typename T>
void compare_residual_and_relu() {
  for (const ChainSpec& spec : kChains) {
    for (const int both : {1, 2, 3}) {
      Problem<T> problem(spec);
      problem.add_residual = both & 1;
      problem.chain.relu = both & 2;
      const Results<T> expected = run_reference(problem, kAll);
      for (const auto& kernel : cuda_group_convolution_kernels<T>()) {
        if (!kernel.supports(problem.chain)) continue;
        SCOPED_TRACE(std::string(spec.name) + ", " + kernel.name + ", " + std::to_string(both));
        expect_near(expected.top, run_emulated(kernel, problem, 0).top, "top");
      }
    }
  }
}

/// Every kernel, with what the bottom's gradient gets besides the convolutions': the skip connection's gradient (also
/// from an address that no vector can be read from), the ReLU's, and both; beside the reference without them.
template <typename T>
void compare_bottom_finish() {
  for (const ChainSpec& spec : kChains) {
    Problem<T> problem(spec);
    problem.bottom[0] = 0;  // where a ReLU lets nothing through
    const Results<T> plain = run_reference(problem, kBottom);
    for (const int finish : {1, 2, 3, 5}) {
      Results<T> expected = plain;
      problem.skip = finish & 1 ? problem.skip_diff.data() + finish / 4 : nullptr;
      problem.bottom_relu = finish & 2;
      for (size_t i = 0; i < expected.bottom_diff.size(); ++i) {
        if (problem.skip) expected.bottom_diff[i] += problem.skip[i];
        if (problem.bottom_relu && problem.bottom[i] <= 0) expected.bottom_diff[i] = 0;
      }
      for (const auto& kernel : cuda_group_convolution_kernels<T>()) {
        if (!kernel.supports(problem.chain)) continue;
        SCOPED_TRACE(std::string(spec.name) + ", " + kernel.name + ", " + std::to_string(finish));
        expect_near(expected.bottom_diff, run_emulated(kernel, problem, kBottom).bottom_diff, "bottom gradient");
      }
    }
  }
}

/// The kernel that would be picked, or all.
template <typename T>
void compare_with_reference(int asked, bool all_kernels) {
  for (const ChainSpec& spec : kChains) {
    const Problem<T> problem(spec);
    const Results<T> expected = run_reference(problem, asked);
    for (const auto& kernel : cuda_group_convolution_kernels<T>()) {
      if (!kernel.supports(problem.chain)) continue;
      SCOPED_TRACE(std::string(spec.name) + ", " + kernel.name);
      expect_near(expected, run_emulated(kernel, problem, asked));
      if (!all_kernels) break;
    }
  }
}

TEST_F(CudaOnHostTest, ChainsMatchReferenceFloat) { compare_with_reference<float>(kAll, true); }
TEST_F(CudaOnHostTest, ChainsMatchReferenceDouble) { compare_with_reference<double>(kAll, true); }

TEST_F(CudaOnHostTest, ResidualAndReluMatchReferenceFloat) { compare_residual_and_relu<float>(); }
TEST_F(CudaOnHostTest, ResidualAndReluMatchReferenceDouble) { compare_residual_and_relu<double>(); }

TEST_F(CudaOnHostTest, BottomGradientIsFinishedFloat) { compare_bottom_finish<float>(); }
TEST_F(CudaOnHostTest, BottomGradientIsFinishedDouble) { compare_bottom_finish<double>(); }

TEST_F(CudaOnHostTest, GradientBeforeRelu) {
  const std::vector<float> y = random_values<float>(1000, 1), y_diff = random_values<float>(1000, 2);
  std::vector<float> expected(1000), actual(1000);
  gradient_before_relu(y.size(), y.data(), y_diff.data(), expected.data());
  gradient_before_relu_cuda(y.size(), y.data(), y_diff.data(), actual.data(), nullptr);
  EXPECT_EQ(expected, actual);
  gradient_before_relu_cuda<float>(y.size(), nullptr, y_diff.data(), actual.data(), nullptr);
  EXPECT_EQ(y_diff, actual);
}

TEST_F(CudaOnHostTest, EachGradientAlone) {
  for (const int asked : {1, 2, 4, 6, 0}) {
    SCOPED_TRACE(asked);
    compare_with_reference<float>(asked, false);
  }
}

TEST_F(CudaOnHostTest, LittleSharedMemory) {
  cuda_on_host::shared_bytes_per_block = 8 * 1024;
  compare_with_reference<float>(kAll, false);
}

TEST_F(CudaOnHostTest, OneAndManyMultiprocessors) {
  for (const int multiprocessors : {1, 132}) {
    cuda_on_host::multiprocessors = multiprocessors;
    compare_with_reference<float>(kAll, false);
  }
}

/// A missing barrier would let the order of threads show.
TEST_F(CudaOnHostTest, OrderOfThreadsDoesNotMatter) {
  for (const ChainSpec& spec : kChains) {
    const Problem<float> problem(spec);
    const auto& kernel = pick_cuda_group_convolution_kernel<float>(problem.chain);
    SCOPED_TRACE(std::string(spec.name) + ", " + kernel.name);
    cuda_on_host::order = Order::kForward;
    const Results<float> expected = run_emulated(kernel, problem, kAll);
    for (const Order order : {Order::kBackward, Order::kShuffled}) {
      cuda_on_host::order = order;
      const Results<float> actual = run_emulated(kernel, problem, kAll);
      EXPECT_EQ(expected.top, actual.top);
      EXPECT_EQ(expected.bottom_diff, actual.bottom_diff);
      EXPECT_EQ(expected.weight_diff, actual.weight_diff);
      EXPECT_EQ(expected.bias_diff, actual.bias_diff);
    }
  }
}

/// Which kernel is picked: all blocks of the paper's networks are fused, other chains run stage by stage.
TEST_F(CudaOnHostTest, PicksTilesWhereTheyFit) {
  const auto picked = [](const ChainSpec& spec) {
    return std::string(pick_cuda_group_convolution_kernel<float>(make_chain(spec)).name);
  };
  const ChainSpec star = {"C216", 64, 864, 8, 8, {{864, 864, 3, 1, 1}, {864, 108}, {864, 108}, {864, 108}, {864, 108}}};
  for (const int kilobytes : {163, 227}) {  // compute capability 8.0 and 9.0
    cuda_on_host::shared_bytes_per_block = kilobytes * 1024;
    EXPECT_EQ("tiles", picked({"C64", 64, 64, 32, 32, {{64, 64, 3, 1, 1}, {64, 8}, {64, 8}}}));
    EXPECT_EQ("tiles", picked(star));
  }
  cuda_on_host::shared_bytes_per_block = 48 * 1024;
  EXPECT_EQ("stages", picked(star));
  EXPECT_EQ("stages", picked({"two spatial", 2, 4, 8, 8, {{4, 4, 3, 1, 1}, {4, 2, 3, 1, 1}}}));
}

}  // namespace

}  // namespace caffe_layers

#endif  // CPU_ONLY
