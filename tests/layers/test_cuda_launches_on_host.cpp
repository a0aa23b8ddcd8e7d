// Emulation, not a GPU run (cuda_on_host/cuda_runtime.h): what keeps launches and makes graphs of them, and the kernel
// that clears arrays.
#ifdef CPU_ONLY

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "caffe_layers/kernels/batch_norm_cuda.hpp"
#include "caffe_layers/kernels/clear_cuda.hpp"
#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/group_convolution_cuda.hpp"
#include "caffe_layers/kernels/launch_graphs.hpp"
#include "caffe_layers/kernels/nesterov_cuda.hpp"
#include "caffe_layers/kernels/workspace_cuda.hpp"

namespace caffe_layers {

namespace {

/// Layers of a kind: three kernels that build on each other's results, with arguments that have padding bytes.
struct Passes {
  std::vector<float> x{1, 2, 3, 5}, y = std::vector<float>(4), gamma{2}, beta{1}, mean{0}, variance{0};
  std::vector<float> moving{0, 0, 0}, workspace = std::vector<float>(1000);

  void run(float eps = 0) {
    BatchNormForward<float> pass = {};
    pass.shape = {4, 1, 1};
    pass.x = x.data();
    pass.gamma = gamma.data();
    pass.beta = beta.data();
    pass.eps = eps;
    pass.relu = pass.batch_statistics = true;
    pass.mean = mean.data();
    pass.variance = variance.data();
    pass.y = y.data();
    batch_norm_forward_cuda(pass, MovingStatistics<float>{&moving[0], &moving[1], &moving[2], 1}, workspace.data(),
                            nullptr);
    // x -= y: the gradient's place is y's, the rate 1.
    std::vector<float>& history = workspace_history;
    const ParameterArray<float> array = {x.data(), y.data(), history.data(), x.size(), 1, 0};
    nesterov_update_cuda(&array, 1, NesterovStep<float>{0, 1, false}, nullptr);
  }

  std::vector<float> workspace_history = std::vector<float>(4);
};

/// Leaves something else on the stack, where the next pass's arguments will lie.
void __attribute__((noinline)) soil_the_stack() {
  volatile unsigned char dirt[4096];
  for (size_t i = 0; i < sizeof(dirt); ++i) dirt[i] = static_cast<unsigned char>(i * 37 + cuda_on_host::launches);
}

class LaunchGraphsOnHost : public ::testing::Test {
 protected:
  void SetUp() override {
    Passes().run();  // the emulation gets to know the kernels
    cuda_on_host::launches = cuda_on_host::graph_launches = 0;
  }

  void keep(Passes* passes, float eps = 0) {
    soil_the_stack();
    graphs_.begin();
    passes->run(eps);
    ASSERT_EQ(graphs_.end(), cudaSuccess);
  }

  LaunchGraphs graphs_;
};

TEST_F(LaunchGraphsOnHost, SameResultsAsLaunches) {
  Passes expected, actual;
  for (int pass = 1; pass <= 5; ++pass) {
    expected.run();
    keep(&actual);
    EXPECT_EQ(expected.x, actual.x) << pass;
    EXPECT_EQ(expected.moving, actual.moving) << pass;
    EXPECT_EQ(graphs_.graphs(), pass > 1 ? 1 : 0) << "the second time makes the graph";
  }
  EXPECT_EQ(cuda_on_host::graph_launches, 4);
  EXPECT_EQ(cuda_on_host::launches, 3 * 5 + 3) << "expected's, and actual's first pass";
}

TEST_F(LaunchGraphsOnHost, NothingStartsBeforeTheEnd) {
  Passes passes;
  const std::vector<float> before = passes.x;
  graphs_.begin();
  passes.run();
  EXPECT_EQ(before, passes.x);
  ASSERT_EQ(graphs_.end(), cudaSuccess);
  EXPECT_NE(before, passes.x);
}

TEST_F(LaunchGraphsOnHost, OtherArgumentsAreNoReason) {
  Passes one, two, expected_one, expected_two;
  for (int turn = 0; turn < 3; ++turn) {  // two memories in turn, as in-place layers have them
    for (Passes* passes : {&expected_one, &expected_two}) passes->run();
    for (Passes* passes : {&one, &two}) keep(passes);
  }
  EXPECT_EQ(graphs_.graphs(), 2);
  EXPECT_EQ(cuda_on_host::graph_launches, 4);
  expected_one.run(0.5f);
  keep(&one, 0.5f);  // new: started as it is
  EXPECT_EQ(cuda_on_host::graph_launches, 4);
  EXPECT_EQ(expected_one.x, one.x);
  EXPECT_EQ(expected_two.x, two.x);
}

TEST_F(LaunchGraphsOnHost, ForgetsTheOldest) {
  Passes passes, expected;
  for (int turn = 0; turn < 2; ++turn) {
    for (float eps : {0.f, 1.f, 2.f, 3.f, 4.f, 5.f}) {  // more than it remembers
      expected.run(eps);
      keep(&passes, eps);
    }
  }
  EXPECT_EQ(graphs_.graphs(), 0);
  EXPECT_EQ(expected.x, passes.x);
  keep(&passes, 5);
  EXPECT_EQ(graphs_.graphs(), 1);
}

TEST_F(LaunchGraphsOnHost, AWorkspaceThatGrowsStartsWhatMayUseIt) {
  Passes passes, expected;
  expected.run();
  expected.run();
  graphs_.begin();
  passes.run();
  device_workspace(size_t(1) << 20, "");
  const std::vector<float> after_one = passes.x;
  EXPECT_EQ(cuda_on_host::launches, 3 * 2 + 3);
  passes.run();
  ASSERT_EQ(graphs_.end(), cudaSuccess);
  EXPECT_NE(after_one, passes.x);
  EXPECT_EQ(expected.x, passes.x);
  EXPECT_EQ(graphs_.graphs(), 0);
}

/// Forward and backward of a fused chain: a 3x3 stage and a 1x1 stage on 4 x 4 x 4 values.
struct FusedChain {
  GroupConvolutionChain chain{
      1,
      {{4, 4, 4, 3, 1, 1, 1, 4, 4, 4, 4, false, {0, 1, 2, 3}}, {4, 4, 2, 1, 1, 0, 1, 4, 4, 4, 4, false, {0, 1, 2, 3}}},
      {0, 1, 2, 3}};
  std::vector<int> tables = channel_tables(chain);
  std::vector<float> bottom = std::vector<float>(64, 1), top = bottom, bottom_diff = bottom, skip = bottom;
  std::vector<float> first = std::vector<float>(36, 1), second = std::vector<float>(8, 1);
  std::vector<float> first_diff = first, second_diff = second, workspace = std::vector<float>(10000);

  void run() {
    const auto& kernel = pick_cuda_group_convolution_kernel<float>(chain);
    ASSERT_STREQ("tiles", kernel.name);
    const ChainParameters<float> parameters = {{first.data(), second.data()}, {nullptr, nullptr}};
    const ChainGradients<float> gradients = {
        bottom_diff.data(), skip.data(), true, {first_diff.data(), second_diff.data()}, {nullptr, nullptr}};
    soil_the_stack();
    kernel.forward(chain, tables.data(), bottom.data(), parameters, top.data(), workspace.data(), nullptr);
    soil_the_stack();
    kernel.backward(chain, tables.data(), bottom.data(), parameters, top.data(), gradients, workspace.data(), nullptr);
  }
};

TEST_F(LaunchGraphsOnHost, FusedChainsAreKnownAgain) {
  FusedChain chain;
  chain.run();
  for (int pass = 1; pass <= 2; ++pass) {
    graphs_.begin();
    chain.run();
    ASSERT_EQ(graphs_.end(), cudaSuccess);
  }
  EXPECT_EQ(graphs_.graphs(), 1);
}

__global__ void count_values(int values, int* count) {
  int* shared = shared_memory<int>();
  for (int i = threadIdx.x; i < values; i += kThreads) shared[i] = 1;
  __syncthreads();
  for (int i = 0; threadIdx.x == 0 && i < values; ++i) *count += shared[i];
}

// What a kernel may use is a setting that its next launch changes, before kept ones start.
TEST_F(LaunchGraphsOnHost, ALaterLaunchTakesNoSharedMemoryAway) {
  int count = 0;
  const auto run = [&count] {
    for (const int values : {50000, 20000}) {
      launch(count_values, dim3(1), values * sizeof(int), nullptr, values, &count);
    }
  };
  run();
  for (int pass = 1; pass <= 3; ++pass) {
    graphs_.begin();
    run();
    ASSERT_EQ(graphs_.end(), cudaSuccess);
  }
  EXPECT_EQ(count, 4 * 70000);
}

TEST(DeviceWorkspaceOnHost, SaysWhatDoesNotFit) {
  cuda_on_host::device_bytes = 5 << 20;
  try {
    device_workspace(6 << 20, "Layer 'a': ");
    FAIL() << "must not have found the memory";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ("Layer 'a': the GPU has no 6 MB left for its workspace: use smaller batches", error.what());
  }
  cuda_on_host::device_bytes = size_t(1) << 32;
}

void check_clear(const std::vector<size_t>& words, size_t shift) {
  std::vector<std::vector<float>> memory;
  std::vector<DeviceArray> arrays;
  for (size_t count : words) memory.emplace_back(count + shift + 1, 7.f);
  for (size_t i = 0; i < words.size(); ++i) arrays.push_back({memory[i].data() + shift, words[i] * sizeof(float)});
  clear_arrays_cuda(arrays.data(), arrays.size(), nullptr);
  for (size_t i = 0; i < words.size(); ++i) {
    std::vector<float> expected(words[i] + shift + 1, 0.f);
    for (size_t k = 0; k < shift; ++k) expected[k] = 7;
    expected.back() = 7;
    EXPECT_EQ(expected, memory[i]) << words[i] << " words, " << shift << " behind the start";
  }
}

TEST(DivisorOnHost, DividesLikeTheOperator) {
  constexpr unsigned kLargest = (1u << 31) - 1;
  for (const unsigned by : {1u, 2u, 3u, 5u, 7u, 8u, 27u, 35u, 64u, 216u, 641u, 65535u, 65536u, 1000003u, kLargest}) {
    const Divisor divisor(by);
    for (const unsigned n : {0u, 1u, by - 1, by, by + 1, 17 * by - 1, 17 * by, 1u << 30, kLargest / by * by - 1,
                             kLargest / by * by, kLargest}) {
      if (n > kLargest) continue;
      unsigned rest = n;
      ASSERT_EQ(n / by, divisor.divide(&rest)) << n << " / " << by;
      ASSERT_EQ(n % by, rest) << n << " / " << by;
    }
  }
}

TEST(ClearArraysOnHost, Sizes) {
  const std::vector<size_t> words = {0, 1, 3, 4, 5, 1023, 1024, 1025, 5000};
  for (size_t shift : {0, 1, 4}) check_clear(words, shift);
  check_clear(std::vector<size_t>(500, 6), 0);
}

}  // namespace

}  // namespace caffe_layers

#endif  // CPU_ONLY
