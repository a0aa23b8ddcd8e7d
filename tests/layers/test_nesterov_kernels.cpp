// Every entry of the table of Nesterov updates against the formula.
#include <gtest/gtest.h>
#include <omp.h>

#include "nesterov_case.hpp"

namespace caffe_layers {

template <typename T>
class NesterovKernelTest : public ::testing::Test {};
typedef ::testing::Types<float, double> Dtypes;
TYPED_TEST_CASE(NesterovKernelTest, Dtypes);

// Around the ends of vectors, and enough in all for several threads, whose parts begin and end inside arrays.
const std::vector<size_t> kCounts = {1, 3, 4, 5, 8, 15, 16, 17, 0, 1000, 33, 70000, 7};

TYPED_TEST(NesterovKernelTest, Formula) {
  for (const auto& kernel : nesterov_kernels<TypeParam>()) {
    for (bool l1 : {false, true}) {
      for (TypeParam scale : {1.0, 0.25}) {
        const NesterovStep<TypeParam> step = {TypeParam(0.875), scale, l1};
        caffe_layers_test::NesterovCase<TypeParam> all(kCounts, step);
        const auto arrays = all.Arrays();
        kernel.update(arrays.data(), arrays.size(), step);
        all.Check(std::string(kernel.name) + (l1 ? ", L1" : ", L2"));
      }
    }
  }
}

TYPED_TEST(NesterovKernelTest, SameBitsForEveryNumberOfThreads) {
  const NesterovStep<TypeParam> step = {TypeParam(0.9), 1, false};
  const int all_threads = omp_get_max_threads();
  for (const auto& kernel : nesterov_kernels<TypeParam>()) {
    caffe_layers_test::NesterovCase<TypeParam> one(kCounts, step);
    omp_set_num_threads(1);
    kernel.update(one.Arrays().data(), kCounts.size(), step);
    for (int threads : {2, 3}) {
      caffe_layers_test::NesterovCase<TypeParam> several(kCounts, step);
      omp_set_num_threads(threads);
      kernel.update(several.Arrays().data(), kCounts.size(), step);
      EXPECT_TRUE(several.data() == one.data()) << kernel.name << " with " << threads << " threads";
    }
    omp_set_num_threads(all_threads);
  }
}

}  // namespace caffe_layers
