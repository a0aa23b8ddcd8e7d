#pragma once

// What tests of group convolution kernels share: runs of one kernel, and comparisons of all that run here with the
// reference.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"
#include "caffe_layers/layer_params.hpp"
#include "group_convolution_shapes.hpp"
#include "kernel_memory.hpp"
#include "naive_chain.hpp"
#include "wide_kernel.hpp"

namespace caffe_layers_test {

using caffe_layers::ChainGradients;
using caffe_layers::GroupConvolutionKernel;

inline GroupConvolutionChain make_chain(const GroupConvolutionShape& shape) {
  return caffe::chain_from_param(shape.param, shape.bottom[0], shape.bottom[1], shape.bottom[2], shape.bottom[3]);
}

template <typename T>
std::vector<T> run_forward(const GroupConvolutionKernel<T>& kernel, const GroupConvolutionChain& chain,
                           const ChainData<T>& data, const T* residual = nullptr) {
  Tensor<T> top(top_count(chain));
  Workspace workspace(kernel.workspace_bytes(chain, false));
  kernel.forward(chain, data.bottom.data(), data.parameters(), {top.data(), residual}, workspace.get());
  return top.values();
}

/// What parameter gradients hold before backward adds to them.
constexpr int kBefore = 3;

/// What happens to the bottom's gradient: `skip` (may be empty) is added to it, where it goes itself if `in_place`.
template <typename T>
struct BottomFinish {
  std::vector<T> skip;
  bool in_place = false, relu = false;
};

/// Which gradients to ask for: bit 0 bottom, then a bit per stage for its weights and one for its bias.
template <typename T>
ChainResults<T> run_backward(const GroupConvolutionKernel<T>& kernel, const GroupConvolutionChain& chain,
                             const ChainData<T>& data, unsigned asked, const BottomFinish<T>& finish = {}) {
  ChainResults<T> results;
  ChainGradients<T> gradients;
  Tensor<T> bottom_diff(bottom_count(chain));
  gradients.bottom = asked & 1 ? bottom_diff.data() : nullptr;
  if (finish.in_place) std::copy(finish.skip.begin(), finish.skip.end(), bottom_diff.data());
  gradients.skip = finish.in_place ? bottom_diff.data() : finish.skip.empty() ? nullptr : finish.skip.data();
  gradients.bottom_relu = finish.relu;
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    results.weight_diff.emplace_back(data.weight[s].size(), kBefore);
    results.bias_diff.emplace_back(data.bias[s].size(), kBefore);
    gradients.weight.push_back(asked >> (2 * s + 1) & 1 ? results.weight_diff[s].data() : nullptr);
    const bool bias = chain.stages[s].bias && (asked >> (2 * s + 2) & 1);
    gradients.bias.push_back(bias ? results.bias_diff[s].data() : nullptr);
  }
  Workspace workspace(kernel.workspace_bytes(chain, true));
  kernel.backward(chain, data.bottom.data(), data.parameters(), data.top_diff.data(), gradients, workspace.get());
  results.bottom_diff = bottom_diff.values();
  return results;
}

constexpr unsigned kEverything = ~0u;

template <typename T>
void expect_parameter_diff(const std::vector<T>& actual, std::vector<double> expected, bool asked,
                           const std::string& what) {
  if (asked) {
    for (double& value : expected) value += kBefore;
    // The sum kBefore + gradient rounds like a sum of as many values: relative to the largest of both.
    expect_close(actual.data(), expected.data(), actual.size(), rounding_tolerance<T>(), what);
  } else {
    for (const T& value : actual) ASSERT_EQ(kBefore, value) << what << " was not asked for";
  }
}

template <typename T>
void expect_results(const ChainResults<T>& actual, const ChainResults<double>& expected, unsigned asked,
                    const std::string& what) {
  if (asked & 1) {
    expect_close(actual.bottom_diff.data(), expected.bottom_diff.data(), actual.bottom_diff.size(),
                 rounding_tolerance<T>(), what + ", bottom gradient");
  } else {
    for (const T& value : actual.bottom_diff) ASSERT_TRUE(std::isnan(value)) << what << ": bottom not asked for";
  }
  for (size_t s = 0; s < actual.weight_diff.size(); ++s) {
    const std::string stage = what + ", stage " + std::to_string(s + 1);
    expect_parameter_diff(actual.weight_diff[s], expected.weight_diff[s], asked >> (2 * s + 1) & 1, stage + " weights");
    expect_parameter_diff(actual.bias_diff[s], expected.bias_diff[s], asked >> (2 * s + 2) & 1, stage + " bias");
  }
}

inline std::string describe(const char* kernel, const GroupConvolutionShape& shape, unsigned asked) {
  std::string what = std::string(kernel) + ", " + shape.name + ", batch " + std::to_string(shape.bottom[0]);
  return asked == kEverything ? what : what + ", gradients asked for " + std::to_string(asked);
}

/// Plain results in double precision, by the reference, which a test of its own holds against the naive loop.
inline ChainResults<double> reference_results(const GroupConvolutionChain& chain, const ChainData<double>& data) {
  const auto& reference = caffe_layers::group_convolution_kernels<double>().back();
  ChainResults<double> results = run_backward(reference, chain, data, kEverything);
  for (auto* diffs : {&results.weight_diff, &results.bias_diff}) {
    for (auto& diff : *diffs) {
      for (double& value : diff) value -= kBefore;
    }
  }
  results.top = run_forward(reference, chain, data);
  return results;
}

template <typename T>
class GroupConvolutionKernelTest : public ::testing::Test {
 protected:
  /// Calls check(kernel) for every entry but the reference that runs here and takes the chain, and for wide_kernels.
  template <typename Check>
  void for_each_fast_kernel(const GroupConvolutionChain& chain, Check check) {
    const auto& table = caffe_layers::group_convolution_kernels<T>();
    for (size_t k = 0; k + 1 < table.size(); ++k) {
      if (table[k].runs_here() && table[k].supports(chain)) check(table[k]);
    }
    for (const GroupConvolutionKernel<T>& wide : wide_kernels<T>()) {
      if (wide.supports(chain)) check(wide);
    }
  }

  void expect_reference_results(const GroupConvolutionShape& shape) {
    const GroupConvolutionChain chain = make_chain(shape);
    const ChainData<T> data = random_chain_data<T>(chain, 5);
    const ChainResults<double> expected = reference_results(chain, random_chain_data<double>(chain, 5));
    for_each_fast_kernel(chain, [&](const GroupConvolutionKernel<T>& kernel) {
      const std::vector<T> top = run_forward(kernel, chain, data);
      const std::string what = describe(kernel.name, shape, kEverything);
      expect_close(top.data(), expected.top.data(), top.size(), rounding_tolerance<T>(), what + ", top");
      expect_results(run_backward(kernel, chain, data, kEverything), expected, kEverything, what);
    });
  }

  /// Of the reference too: the bottom's gradient with a skip connection's and behind a ReLU.
  void expect_skip_and_bottom_relu(const GroupConvolutionShape& shape) {
    const GroupConvolutionChain chain = make_chain(shape);
    const ChainData<T> data = random_chain_data<T>(chain, 5);
    const ChainResults<double> plain = reference_results(chain, random_chain_data<double>(chain, 5));
    const std::vector<T> skip = random_values<T>(bottom_count(chain), 6);
    for (const BottomFinish<T>& finish :
         {BottomFinish<T>{{}, false, true}, BottomFinish<T>{skip, false, false}, BottomFinish<T>{skip, true, true}}) {
      ChainResults<double> expected = plain;
      for (size_t i = 0; i < skip.size(); ++i) {
        expected.bottom_diff[i] += finish.skip.empty() ? 0 : skip[i];
        if (finish.relu && !(data.bottom[i] > 0)) expected.bottom_diff[i] = 0;
      }
      const auto check = [&](const GroupConvolutionKernel<T>& kernel) {
        const std::string what = describe(kernel.name, shape, kEverything) + (finish.relu ? ", relu" : "") +
                                 (finish.skip.empty() ? ""
                                  : finish.in_place   ? ", skip in place"
                                                      : ", skip");
        expect_results(run_backward(kernel, chain, data, kEverything, finish), expected, kEverything, what);
      };
      for_each_fast_kernel(chain, check);
      check(caffe_layers::group_convolution_kernels<T>().back());
    }
  }

  /// Of the reference too.
  void expect_residual_and_relu(const GroupConvolutionShape& shape) {
    GroupConvolutionChain chain = make_chain(shape);
    const ChainData<T> data = random_chain_data<T>(chain, 5);
    const std::vector<T> residual = random_values<T>(top_count(chain), 6);
    const auto& reference = caffe_layers::group_convolution_kernels<double>().back();
    const std::vector<double> plain = run_forward(reference, chain, random_chain_data<double>(chain, 5));
    for (const bool add : {false, true}) {
      for (const bool relu : {false, true}) {
        std::vector<double> expected = plain;
        for (size_t i = 0; i < expected.size(); ++i) {
          expected[i] += add ? residual[i] : 0;
          if (relu) expected[i] = std::max(expected[i], 0.0);
        }
        chain.relu = relu;
        for (const auto& kernel : caffe_layers::group_convolution_kernels<T>()) {
          if (!kernel.runs_here() || !kernel.supports(chain)) continue;
          const std::vector<T> top = run_forward(kernel, chain, data, add ? residual.data() : nullptr);
          const std::string what = describe(kernel.name, shape, kEverything);
          expect_close(top.data(), expected.data(), top.size(), rounding_tolerance<T>(),
                       what + (add ? ", residual" : "") + (relu ? ", relu" : ""));
        }
      }
    }
  }
};

}  // namespace caffe_layers_test
