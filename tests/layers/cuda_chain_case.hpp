#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "caffe_layers/kernels/group_convolution_cuda.hpp"

// Chains for the emulated CUDA kernels, and the passes through them, by the reference and in emulation.

namespace caffe_layers {

template <typename T>
std::vector<T> random_values(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<T> uniform(-1, 1);
  std::vector<T> values(count);
  for (T& value : values) value = uniform(random);
  return values;
}

inline std::vector<int> random_permutation(int channels, unsigned seed) {
  std::vector<int> perm(channels);
  std::iota(perm.begin(), perm.end(), 0);
  std::shuffle(perm.begin(), perm.end(), std::mt19937(seed));
  return perm;
}

struct StageSpec {
  int out_channels, group, kernel = 1, stride = 1, pad = 0, dilation = 1;
  bool bias = false;
};

struct ChainSpec {
  const char* name;
  int batch, channels, height, width;
  std::vector<StageSpec> stages;
};

inline GroupConvolutionChain make_chain(const ChainSpec& spec) {
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
inline const std::vector<ChainSpec> kChains = {
    {"igcv2 stage 1", 2, 16, 32, 32, {{16, 16, 3, 1, 1}, {16, 4}, {16, 4}}},
    {"igcv2 stage 3", 1, 32, 8, 8, {{32, 32, 3, 1, 1}, {32, 2}, {32, 2}}},
    {"igcv2, branches of 8", 2, 72, 16, 16, {{72, 72, 3, 1, 1}, {72, 9}, {72, 9}}},
    {"igcv2, branches of 8, 32x32", 2, 16, 32, 32, {{16, 16, 3, 1, 1}, {16, 2}, {16, 2}}},
    {"igcv2, branches of 8, 32x8", 1, 24, 32, 8, {{24, 24, 3, 1, 1}, {24, 3}, {24, 3}}},
    {"igcv2, branches of 8, 8x64", 1, 8, 8, 64, {{8, 8, 3, 1, 1}, {8, 1}, {8, 1}}},
    {"igcv2, branches of 16", 2, 144, 8, 16, {{144, 144, 3, 1, 1}, {144, 9}, {144, 9}}},
    {"igcv2, branches of 16, 32x32", 1, 32, 32, 32, {{32, 32, 3, 1, 1}, {32, 2}, {32, 2}}},
    {"igcv2 transition", 2, 16, 16, 16, {{16, 16, 3, 2, 1}, {32, 8}, {32, 8}}},
    {"igcv2 I", 2, 18, 8, 8, {{18, 9, 3, 1, 1}, {18, 6}, {18, 6}}},
    {"igcv2 star", 1, 27, 8, 8, {{27, 27, 3, 1, 1}, {27, 9}, {27, 9}, {27, 9}, {27, 9}}},
    {"igcv1", 1, 24, 16, 16, {{24, 6, 3, 1, 1}, {24, 4}}},
    {"xception", 2, 11, 16, 16, {{11, 11, 3, 1, 1}, {11, 1}}},
    {"xception transition", 1, 11, 32, 32, {{11, 11, 3, 2, 1}, {22, 1}}},
    {"projection", 1, 16, 16, 16, {{32, 8, 1, 2}}},
    {"projection of odd rows", 2, 6, 7, 16, {{8, 2, 1, 2}}},
    {"projection of odd maps", 2, 6, 13, 15, {{8, 2, 1, 2}}},
    {"projection of every third", 2, 4, 8, 7, {{4, 2, 1, 3}, {6, 2}}},
    {"dense 1x1", 1, 20, 8, 8, {{12, 1}}},
    {"two 1x1", 2, 12, 5, 7, {{24, 3}, {8, 2}}},
    {"first convolution", 2, 3, 32, 32, {{8, 1, 3, 1, 1}}},
    {"all biases", 2, 8, 8, 8, {{16, 8, 3, 1, 1, 1, true}, {8, 4, 1, 1, 0, 1, true}, {12, 4, 1, 1, 0, 1, true}}},
    {"most stages",
     1,
     8,
     4,
     4,
     {{8, 8, 3, 1, 1, 1, true},
      {8, 2, 1, 1, 0, 1, true},
      {8, 4, 1, 1, 0, 1, true},
      {8, 2, 1, 1, 0, 1, true},
      {8, 4, 1, 1, 0, 1, true},
      {8, 2, 1, 1, 0, 1, true},
      {8, 4, 1, 1, 0, 1, true},
      {8, 2, 1, 1, 0, 1, true},
      {8, 4, 1, 1, 0, 1, true}}},
    {"biased 1x1", 3, 6, 5, 5, {{9, 3, 1, 1, 0, 1, true}}},
    {"1x1 map", 5, 8, 1, 1, {{8, 8, 3, 1, 1}, {8, 2}}},
    {"5x7 map", 2, 8, 5, 7, {{8, 8, 3, 1, 1}, {8, 2}}},
    {"13x13 map", 2, 6, 13, 13, {{6, 6, 3, 1, 1}, {6, 2}, {6, 3}}},
    {"12x20 map", 1, 4, 12, 20, {{4, 4, 3, 1, 1}, {4, 2}}},
    {"wide map", 1, 2, 3, 160, {{2, 2, 3, 1, 1}, {4, 1}}},
    {"stride 2 wide map", 1, 2, 4, 320, {{2, 2, 3, 2, 1}, {4, 1}}},
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

/// Which gradients are asked for: of bottom, and of each stage's weights and biases.
using Asked = unsigned;
constexpr Asked kNone = 0, kBottom = 1, kWeights = 0x2aaaaaaa, kBiases = 0x55555554, kAll = ~0u;
constexpr Asked weight_bit(size_t stage) { return 2u << 2 * stage; }
constexpr Asked bias_bit(size_t stage) { return 4u << 2 * stage; }

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

  ChainGradients<T> gradients(const Problem<T>& p, Asked asked, T* bottom) {
    ChainGradients<T> g;
    g.bottom = asked & kBottom ? bottom : nullptr;
    g.skip = p.skip;
    g.bottom_relu = p.bottom_relu;
    for (size_t s = 0; s < weight_diff.size(); ++s) {
      g.weight.push_back(asked & weight_bit(s) ? weight_diff[s].data() : nullptr);
      g.bias.push_back(asked & bias_bit(s) && p.chain.stages[s].bias ? bias_diff[s].data() : nullptr);
    }
    return g;
  }
};

template <typename T>
Results<T> run_reference(const Problem<T>& p, Asked asked) {
  const GroupConvolutionKernel<T>& kernel = group_convolution_kernels<T>().back();
  Results<T> r(p);
  std::vector<char> workspace(kernel.workspace_bytes(p.chain, true));
  kernel.forward(p.chain, p.bottom.data(), p.parameters, {r.top.data(), p.added()}, workspace.data());
  kernel.backward(p.chain, p.bottom.data(), p.parameters, p.top_diff.data(),
                  r.gradients(p, asked, r.bottom_diff.data()), workspace.data());
  return r;
}

/// What lies one value behind an address that vectors can be read from.
enum Shifted { kBottomShifted = 1, kTopDiffShifted = 2, kWeightsShifted = 4, kResultsShifted = 8 };

template <typename T>
std::vector<T> shifted(const std::vector<T>& values, bool shift) {
  std::vector<T> copy(shift, 0);
  copy.insert(copy.end(), values.begin(), values.end());
  return copy;
}

/// Scratch memory of just the size asked for, full of NaNs, with a guard behind it.
template <typename T>
class GuardedWorkspace {
 public:
  explicit GuardedWorkspace(size_t bytes)
      : memory_(bytes / sizeof(T) + kGuard, std::numeric_limits<T>::quiet_NaN()), used_(bytes / sizeof(T)) {}
  T* data() { return memory_.data(); }
  void expect_guard() const {
    EXPECT_TRUE(std::all_of(memory_.begin() + used_, memory_.end(), [](T v) { return std::isnan(v); }))
        << "writes past its workspace";
  }

 private:
  static constexpr size_t kGuard = 64;
  std::vector<T> memory_;
  size_t used_;
};

template <typename T>
Results<T> run_emulated(const CudaGroupConvolutionKernel<T>& kernel, const Problem<T>& p, Asked asked, int shift = 0) {
  Results<T> r(p);
  const bool results = shift & kResultsShifted;
  const auto bottom = shifted(p.bottom, shift & kBottomShifted),
             top_diff = shifted(p.top_diff, shift & kTopDiffShifted);
  std::vector<T> top = shifted(r.top, results), bottom_diff = shifted(r.bottom_diff, results);
  std::vector<std::vector<T>> weights;
  ChainParameters<T> parameters = p.parameters;
  for (size_t s = 0; s < p.weight.size(); ++s) {
    weights.push_back(shifted(p.weight[s], shift & kWeightsShifted));
    parameters.weight[s] = weights[s].data() + (shift & kWeightsShifted ? 1 : 0);
  }
  const T* first = bottom.data() + (shift & kBottomShifted ? 1 : 0);
  GuardedWorkspace<T> forward(kernel.workspace_bytes(p.chain, false)), backward(kernel.workspace_bytes(p.chain, true));
  kernel.forward(p.chain, p.tables.data(), first, parameters, {top.data() + results, p.added()}, forward.data(),
                 nullptr);
  kernel.backward(p.chain, p.tables.data(), first, parameters, top_diff.data() + (shift & kTopDiffShifted ? 1 : 0),
                  r.gradients(p, asked, bottom_diff.data() + results), backward.data(), nullptr);
  forward.expect_guard();
  backward.expect_guard();
  r.top.assign(top.begin() + results, top.end());
  r.bottom_diff.assign(bottom_diff.begin() + results, bottom_diff.end());
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

}  // namespace caffe_layers
