// Winograd's algorithm at the edges of its tiles, vectors and jobs, and when it is picked. What all kernels are tested
// for, test_group_convolution_kernels.cpp tests it for too.
#include <string>
#include <vector>

#include "group_convolution_kernel_fixture.hpp"

namespace caffe_layers_test {
namespace {

bool is_winograd(const std::string& kernel) { return kernel.find("winograd") == 0; }

/// The largest error of `actual`, relative to the largest expected value.
template <typename T>
double largest_error(const std::vector<T>& actual, const std::vector<double>& expected) {
  double scale = 0, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    scale = std::max(scale, std::abs(expected[i]));
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  }
  return worst / scale;
}

}  // namespace

template <typename T>
class GroupConvolutionKernelWinogradTest : public GroupConvolutionKernelTest<T> {
 protected:
  void expect_matches(const std::string& line) {
    const GroupConvolutionShape shape = parse_shape(line);
    const GroupConvolutionChain chain = make_chain(shape);
    int kernels = 0;
    this->for_each_fast_kernel(chain, [&](const GroupConvolutionKernel<T>& k) { kernels += is_winograd(k.name); });
    ASSERT_GE(kernels, 2) << line << ": not taken";  // at least portable and 512 bits
    this->expect_reference_results(shape);
    this->expect_skip_and_bottom_relu(shape);
  }
};
TYPED_TEST_CASE(GroupConvolutionKernelWinogradTest, caffe::TestDtypes);

TYPED_TEST(GroupConvolutionKernelWinogradTest, MapsAndBatches) {
  for (const char* map :
       {"1x1", "1x9", "3x3", "4x4", "5x7", "8x8", "13x13", "16x16", "17x33", "32x32", "5x8", "3x16", "9x32", "6x64"}) {
    for (const char* batch : {"1", "3", "5", "17"}) {
      const std::string size = std::string(map) + "-batch-" + batch;
      this->expect_matches("dense-" + size + " " + batch + "x16x" + map + " | 16 k3 p1");
      this->expect_matches("groups-" + size + " " + batch + "x16x" + map + " | 20 g2 k3 p1 b m7 | out m5");
    }
  }
}

TYPED_TEST(GroupConvolutionKernelWinogradTest, Channels) {
  for (const int inputs : {1, 7, 8, 15, 16, 17, 33, 49, 64}) {
    for (const int outputs : {1, 8, 15, 16, 17, 31, 64}) {
      const std::string channels = std::to_string(inputs) + "x9x8 | " + std::to_string(outputs);
      this->expect_matches("channels 3x" + channels + " k3 p1 b");
    }
  }
  this->expect_matches("many 2x200x8x8 | 170 k3 p1");
  this->expect_matches("wide 1x16x6x300 | 16 k3 p1");
}

TYPED_TEST(GroupConvolutionKernelWinogradTest, ResidualAndRelu) {
  for (const char* line : {"tiles 5x16x16x16 | 16 k3 p1 b", "edges 3x24x13x9 | 16 g2 k3 p1 m5 b | out m7"}) {
    this->expect_residual_and_relu(parse_shape(line));
  }
}

/// In float, for double has nothing to be compared with. With the usual interpolation points 0, +-1, +-2 the errors
/// would be four to five times those of the direct kernels.
TEST(GroupConvolutionKernelWinogradErrorTest, IsAtMostTwiceThatOfDirectConvolution) {
  const GroupConvolutionChain chain = make_chain(parse_shape("error 8x64x16x16 | 64 k3 p1"));
  const ChainData<float> data = random_chain_data<float>(chain, 5);
  const ChainResults<double> expected = reference_results(chain, random_chain_data<double>(chain, 5));
  double direct = 0, direct_back = 0, winograd = 0, winograd_back = 0;
  for (const GroupConvolutionKernel<float>& kernel : caffe_layers::group_convolution_kernels<float>()) {
    if (!kernel.runs_here() || std::string(kernel.name) == "reference") continue;
    const double error = largest_error(run_forward(kernel, chain, data), expected.top);
    const double error_back = largest_error(run_backward(kernel, chain, data, 1).bottom_diff, expected.bottom_diff);
    double& worst = is_winograd(kernel.name) ? winograd : direct;
    double& worst_back = is_winograd(kernel.name) ? winograd_back : direct_back;
    worst = std::max(worst, error);
    worst_back = std::max(worst_back, error_back);
  }
  EXPECT_LT(winograd, 2 * direct);
  EXPECT_LT(winograd_back, 2 * direct_back);
}

TYPED_TEST(GroupConvolutionKernelWinogradTest, PickedWhereItPays) {
  const auto picked = [](const char* line) {
    return is_winograd(caffe_layers::pick_group_convolution_kernel<TypeParam>(make_chain(parse_shape(line))).name);
  };
  for (const char* line :
       {"resnet-1 64x16x32x32 | 16 k3 p1", "resnet-3 64x64x8x8 | 64 k3 p1", "groups 16x16x8x8 | 16 g2 k3 p1",
        "image 1x16x32x32 | 16 k3 p1", "tiles-16 4x16x8x8 | 16 k3 p1"}) {
    EXPECT_TRUE(picked(line)) << line;
  }
  for (const char* line :
       {"few-inputs 64x7x32x32 | 16 k3 p1", "few-outputs 64x16x32x32 | 7 k3 p1",
        "narrow-groups 64x64x32x32 | 64 g16 k3 p1", "tiles-12 3x64x8x8 | 64 k3 p1", "small 8x16x8x8 | 16 g2 k3 p1",
        "low 64x16x2x64 | 16 k3 p1", "stride 64x16x32x32 | 16 k3 p1 s2", "no-pad 64x16x32x32 | 16 k3",
        "dilation 64x16x32x32 | 16 k3 p1 d2", "chain 64x16x32x32 | 16 k3 p1 | 16"}) {
    EXPECT_FALSE(picked(line)) << line;
  }
}

}  // namespace caffe_layers_test
