// As test_cuda_kernels_on_host.cpp: the CUDA permutation's source, compiled for the host, against the CPU's.
#ifdef CPU_ONLY

#include <cuda_runtime.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "caffe_layers/kernels/permutation.hpp"
#include "caffe_layers/kernels/permutation_cuda.hpp"
#include "device_test.hpp"

namespace caffe_layers {

namespace {

template <typename T>
void compare_permutations() {
  const int shapes[][3] = {{2, 6, 1},    {3, 5, 7},  {2, 4, 64}, {1, 3, 1024},
                           {2, 3, 2052}, {70, 9, 4}, {1, 1, 1},  {300, 3, 2}};
  for (const auto& [batch, channels, plane] : shapes) {
    for (const int misaligned : {0, 1}) {
      SCOPED_TRACE(testing::Message() << batch << " x " << channels << " x " << plane << " + " << misaligned);
      const size_t count = size_t(batch) * channels * plane;
      std::vector<int> perm(channels);
      std::iota(perm.begin(), perm.end(), 0);
      std::shuffle(perm.begin(), perm.end(), std::mt19937(5));
      const std::vector<T> bottom = caffe_layers_test::random_values<T>(count + misaligned, 6);
      std::vector<T> expected(count), actual(count + misaligned);
      permute_channels(bottom.data() + misaligned, perm.data(), batch, channels, plane, expected.data());
      permute_channels_cuda(bottom.data() + misaligned, perm.data(), batch, channels, plane, actual.data() + misaligned,
                            nullptr);
      EXPECT_EQ(expected, std::vector<T>(actual.begin() + misaligned, actual.end()));
    }
  }
}

TEST(CudaPermutationOnHostTest, MatchesCpuFloat) { compare_permutations<float>(); }
TEST(CudaPermutationOnHostTest, MatchesCpuDouble) { compare_permutations<double>(); }

}  // namespace

}  // namespace caffe_layers

#endif  // CPU_ONLY
