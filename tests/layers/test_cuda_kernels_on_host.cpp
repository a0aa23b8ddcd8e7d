// Emulation, not a GPU run: the CUDA kernels' source, compiled for the host (cuda_on_host/cuda_runtime.h), against the
// reference. It needs no device and says nothing about speed. Builds with CUDA test the real kernels instead.
#ifdef CPU_ONLY

#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "cuda_chain_case.hpp"

namespace caffe_layers {

namespace {

using cuda_on_host::Order;

/// Sets what the emulated device has, for one test.
class CudaOnHostTest : public ::testing::Test {
 protected:
  void TearDown() override {
    cuda_on_host::order = Order::kForward;
    cuda_on_host::shared_bytes_per_block = 227 * 1024;
    cuda_on_host::multiprocessors = 4;
  }
};

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
void compare_with_reference(Asked asked, bool all_kernels) {
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
  for (const Asked asked : {kBottom, kWeights, kBiases, kWeights | kBiases, kNone}) {
    SCOPED_TRACE(asked);
    compare_with_reference<float>(asked, false);
  }
}

/// Every combination of gradients asked for, by stage.
TEST_F(CudaOnHostTest, EverySubsetOfGradients) {
  for (const std::string name :
       {"all biases", "two 1x1", "projection of every third", "projection", "igcv2, branches of 8, 32x8"}) {
    const auto spec =
        std::find_if(kChains.begin(), kChains.end(), [&](const ChainSpec& chain) { return chain.name == name; });
    ASSERT_NE(kChains.end(), spec);
    const Problem<float> problem(*spec);
    const auto& kernel = pick_cuda_group_convolution_kernel<float>(problem.chain);
    for (Asked asked = 0; asked < weight_bit(problem.chain.stages.size()); ++asked) {
      SCOPED_TRACE(name + ", asked " + std::to_string(asked));
      expect_near(run_reference(problem, asked), run_emulated(kernel, problem, asked));
    }
  }
}

TEST_F(CudaOnHostTest, AddressesThatVectorsCannotBeReadFrom) {
  for (const ChainSpec& spec : kChains) {
    const Problem<float> problem(spec);
    const Results<float> expected = run_reference(problem, kAll);
    const auto& kernel = pick_cuda_group_convolution_kernel<float>(problem.chain);
    for (const int shift : {+kBottomShifted, +kTopDiffShifted, +kWeightsShifted, +kResultsShifted}) {
      SCOPED_TRACE(std::string(spec.name) + ", shifted " + std::to_string(shift));
      expect_near(expected, run_emulated(kernel, problem, kAll, shift));
    }
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
TEST_F(CudaOnHostTest, PicksTheFusedKernelThatFits) {
  const auto picked = [](const ChainSpec& spec) {
    return std::string(pick_cuda_group_convolution_kernel<float>(make_chain(spec)).name);
  };
  const ChainSpec star = {"C216", 64, 864, 8, 8, {{864, 864, 3, 1, 1}, {864, 108}, {864, 108}, {864, 108}, {864, 108}}};
  for (const int kilobytes : {163, 227}) {  // compute capability 8.0 and 9.0
    cuda_on_host::shared_bytes_per_block = kilobytes * 1024;
    EXPECT_EQ("igcv2", picked({"C64", 64, 64, 32, 32, {{64, 64, 3, 1, 1}, {64, 8}, {64, 8}}}));
    EXPECT_EQ("tiles", picked({"C80", 64, 80, 32, 32, {{80, 80, 3, 1, 1}, {80, 8}, {80, 8}}}));
    EXPECT_EQ("tiles", picked({"biased", 64, 64, 32, 32, {{64, 64, 3, 1, 1}, {64, 8, 1, 1, 0, 1, true}, {64, 8}}}));
    EXPECT_EQ("tiles", picked({"odd rows", 64, 64, 33, 32, {{64, 64, 3, 1, 1}, {64, 8}, {64, 8}}}));
    EXPECT_EQ("tiles", picked(star));
  }
  cuda_on_host::shared_bytes_per_block = 48 * 1024;
  EXPECT_EQ("stages", picked(star));
  cuda_on_host::shared_bytes_per_block = 227 * 1024;
  EXPECT_EQ("stages", picked({"2^32 values between", 1, 3, 1024, 1024, {{4096, 1, 3, 1, 1}, {4, 1}}}));
  EXPECT_EQ("stages", picked({"two spatial", 2, 4, 8, 8, {{4, 4, 3, 1, 1}, {4, 2, 3, 1, 1}}}));
}

}  // namespace

}  // namespace caffe_layers

#endif  // CPU_ONLY
