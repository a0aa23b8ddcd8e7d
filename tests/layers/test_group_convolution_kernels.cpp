// Kernels of group convolution chains on plain pointers: the reference against a naive loop, every other entry of the
// table that runs here against the reference.
#include <omp.h>

#include <iostream>
#include <string>
#include <vector>

#include "caffe_layers/kernels/streaming.hpp"
#include "group_convolution_kernel_fixture.hpp"

namespace caffe_layers_test {

TYPED_TEST_CASE(GroupConvolutionKernelTest, caffe::TestDtypes);

TYPED_TEST(GroupConvolutionKernelTest, TableEndsWithTheReference) {
  const auto& table = caffe_layers::group_convolution_kernels<TypeParam>();
  ASSERT_FALSE(table.empty());
  EXPECT_STREQ("reference", table.back().name);
  for (const auto& kernel : table) {
    if (!kernel.runs_here()) std::cout << "[  SKIPPED ] this CPU cannot run " << kernel.name << std::endl;
  }
}

TYPED_TEST(GroupConvolutionKernelTest, ReferenceMatchesNaiveLoop) {
  const auto& reference = caffe_layers::group_convolution_kernels<TypeParam>().back();
  for (const GroupConvolutionShape& shape : group_convolution_shapes(1)) {
    if (shape.name.find("edge") != 0 && shape.name.find("stage3") == std::string::npos) continue;
    const GroupConvolutionChain chain = make_chain(shape);
    const ChainData<TypeParam> data = random_chain_data<TypeParam>(chain, 1);
    const ChainResults<double> expected = naive_chain(chain, random_chain_data<double>(chain, 1));
    const std::vector<TypeParam> top = run_forward(reference, chain, data);
    expect_close(top.data(), expected.top.data(), top.size(), rounding_tolerance<TypeParam>(), shape.name + ", top");
    const size_t stages = chain.stages.size();
    for (unsigned asked : {kEverything, 0u, 1u, 2u, 1u << (2 * stages - 1), 0xaaaaaaaau, 0x55555555u}) {
      expect_results(run_backward(reference, chain, data, asked), expected, asked, describe("reference", shape, asked));
    }
  }
}

TYPED_TEST(GroupConvolutionKernelTest, FastKernelsMatchReference) {
  for (const GroupConvolutionShape& shape : group_convolution_shapes(2)) {
    this->expect_reference_results(shape);
  }
}

/// At least one tensor of each, or its gradient, is written past the caches.
TYPED_TEST(GroupConvolutionKernelTest, FastKernelsMatchReferenceOnLargeTensors) {
  for (const char* line : {
           "block 64x32x32x32 | 32 g32 k3 p1 | 32 g8 | 32 g8 i8 b | out i8",
           "odd-outputs 32x33x32x64 | 33 g33 k3 p1 | 33 g3",
           "bands 2x256x64x64 | 256 g256 k3 p1 | 256 g64",
           "pointwise 16x64x32x64 | 64 g2",
           "shortcut 64x32x32x32 | 128 g16 s2",
           "small-maps 64x512x8x8 | 512 g512 k3 p1 | 512 g64 b m5 | out m3",
           "odd-rows 8x1824x12x12 | 1824 g1824 k3 p1 | 1824 g228",
           "half 64x128x16x16 | 128 g128 k3 s2 p1 | 64 g8",
           "dense 16x32x64x64 | 32 k3 p1",
       }) {
    const GroupConvolutionShape shape = parse_shape(line);
    const GroupConvolutionChain chain = make_chain(shape);
    const size_t values = std::max(bottom_count(chain), top_count(chain));
    ASSERT_GE(values * sizeof(float), size_t(caffe_layers::kStreamedBytes)) << shape.name;
    this->expect_reference_results(shape);
    this->expect_residual_and_relu(shape);
    this->expect_skip_and_bottom_relu(shape);
  }
}

TYPED_TEST(GroupConvolutionKernelTest, AllAddTheResidualAndTakeTheRelu) {
  for (const GroupConvolutionShape& shape : group_convolution_shapes(1)) {
    if (shape.name.find("edge") != 0 && shape.name.find("igcv2-c64-") != 0) continue;
    this->expect_residual_and_relu(shape);
  }
}

TYPED_TEST(GroupConvolutionKernelTest, AllAddTheSkipConnectionAndTakeTheBottomsRelu) {
  for (const GroupConvolutionShape& shape : group_convolution_shapes(1)) {
    this->expect_skip_and_bottom_relu(shape);
  }
}

TYPED_TEST(GroupConvolutionKernelTest, FastKernelsGiveAnyGradientsAskedFor) {
  for (const GroupConvolutionShape& shape : group_convolution_shapes(1)) {
    const bool small = shape.name.find("edge") == 0 || shape.name.find("c64-") != std::string::npos ||
                       shape.name.find("c48-") != std::string::npos || shape.name.find("c35-") != std::string::npos;
    if (!small) continue;
    const GroupConvolutionChain chain = make_chain(shape);
    const ChainData<TypeParam> data = random_chain_data<TypeParam>(chain, 9);
    const ChainResults<double> expected = reference_results(chain, random_chain_data<double>(chain, 9));
    this->for_each_fast_kernel(chain, [&](const GroupConvolutionKernel<TypeParam>& kernel) {
      for (unsigned asked = 0; asked < 1u << (2 * chain.stages.size() + 1); ++asked) {
        bool nothing_new = false;  // a stage without bias has no bias gradient to leave out
        for (size_t s = 0; s < chain.stages.size(); ++s) {
          nothing_new |= !chain.stages[s].bias && (asked >> (2 * s + 2) & 1);
        }
        if (nothing_new) continue;
        expect_results(run_backward(kernel, chain, data, asked), expected, asked, describe(kernel.name, shape, asked));
      }
    });
  }
}

TYPED_TEST(GroupConvolutionKernelTest, WorkspaceIsSmallerThanTheTensors) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(2);
  for (const GroupConvolutionShape& shape : group_convolution_shapes(64)) {
    if (shape.bottom[0] < 64) continue;
    const GroupConvolutionChain chain = make_chain(shape);
    for (const auto& kernel : caffe_layers::group_convolution_kernels<TypeParam>()) {
      if (!kernel.runs_here() || !kernel.supports(chain)) continue;
      // A first convolution reads three channels and writes dozens: there the output is the measure.
      const bool first = chain.stages.front().in_channels == 3;
      const size_t tensor = (first ? top_count(chain) : bottom_count(chain)) * sizeof(TypeParam);
      EXPECT_LT(kernel.workspace_bytes(chain, false), tensor) << describe(kernel.name, shape, kEverything);
      EXPECT_LT(kernel.workspace_bytes(chain, true), tensor) << describe(kernel.name, shape, kEverything);
    }
  }
  omp_set_num_threads(threads);
}

// Forward then shares out the rows or the outputs of an image; 64 and 65 inputs are on both sides of kPairPlanes.
TYPED_TEST(GroupConvolutionKernelTest, MoreThreadsThanImages) {
  const int threads = omp_get_max_threads();
  for (const char* line :
       {"map-8 1x64x8x8 | 64 k3 p1 b", "uneven 1x9x8x8 | 20 k3 p1 b m3 | out m3", "odd-map 2x16x13x13 | 24 k3 p1",
        "stride 1x32x16x16 | 40 k3 s2 p1 b m3", "kernel-5 1x10x9x11 | 12 k5 p2 b", "tiles 1x32x16x16 | 33 k3 p1 b",
        "groups 1x32x16x16 | 32 g2 k3 p1 b m3 | out m5", "planes-64 2x128x8x8 | 130 g2 k3 p1",
        "planes-65 2x130x8x8 | 128 g2 k3 p1", "chain 1x16x16x16 | 16 g16 k3 p1 | 24 g2 b m2 | out m5"}) {
    for (const int count : {2, 3, 5}) {
      omp_set_num_threads(count);
      this->expect_reference_results(parse_shape(line));
      this->expect_residual_and_relu(parse_shape(line));
      this->expect_skip_and_bottom_relu(parse_shape(line));
    }
  }
  omp_set_num_threads(threads);
}

TYPED_TEST(GroupConvolutionKernelTest, ThreadsChangeNothingButRounding) {
  const int threads = omp_get_max_threads();
  for (const GroupConvolutionShape& shape : group_convolution_shapes(3)) {
    const bool chosen = shape.name.find("edge") == 0 || shape.name.find("igcv2-c64-") == 0 ||
                        shape.name.find("igcv1-c48-") == 0 || shape.name.find("xception-c35-") == 0;
    if (!chosen) continue;
    const GroupConvolutionChain chain = make_chain(shape);
    const ChainData<TypeParam> data = random_chain_data<TypeParam>(chain, 13);
    this->for_each_fast_kernel(chain, [&](const GroupConvolutionKernel<TypeParam>& kernel) {
      ChainResults<TypeParam> one;
      for (int count : {1, 2, 3}) {
        omp_set_num_threads(count);
        ChainResults<TypeParam> results = run_backward(kernel, chain, data, kEverything);
        results.top = run_forward(kernel, chain, data);
        ChainResults<TypeParam> again = run_backward(kernel, chain, data, kEverything);
        again.top = run_forward(kernel, chain, data);
        const std::string what = describe(kernel.name, shape, kEverything) + ", " + std::to_string(count) + " threads";
        EXPECT_TRUE(results.top == again.top && results.bottom_diff == again.bottom_diff &&
                    results.weight_diff == again.weight_diff && results.bias_diff == again.bias_diff)
            << what << ": differs between runs";
        if (count == 1) one = results;
        const auto expect_same = [&](const std::vector<TypeParam>& actual, const std::vector<TypeParam>& expected,
                                     const char* of) {
          expect_close(actual.data(), expected.data(), expected.size(), rounding_tolerance<TypeParam>(), what + of);
        };
        expect_same(results.top, one.top, ", top");
        expect_same(results.bottom_diff, one.bottom_diff, ", bottom gradient");
        for (size_t s = 0; s < one.weight_diff.size(); ++s) {
          expect_same(results.weight_diff[s], one.weight_diff[s], ", weights");
          expect_same(results.bias_diff[s], one.bias_diff[s], ", bias");
        }
      }
    });
  }
  omp_set_num_threads(threads);
}

}  // namespace caffe_layers_test
