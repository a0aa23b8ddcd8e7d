// Emulation, not a GPU run: the CUDA update, compiled for the host (cuda_on_host/cuda_runtime.h), against the formula.
// Builds with CUDA test the real kernel through the solver instead.
#ifdef CPU_ONLY

#include <cuda_runtime.h>

#include "caffe_layers/kernels/nesterov_cuda.hpp"
#include "nesterov_case.hpp"

namespace caffe_layers {

template <typename T>
void check_emulated(const std::vector<size_t>& counts) {
  for (bool l1 : {false, true}) {
    const NesterovStep<T> step = {T(0.875), T(0.5), l1};
    caffe_layers_test::NesterovCase<T> all(counts, step);
    const auto arrays = all.Arrays();
    nesterov_update_cuda(arrays.data(), arrays.size(), step, nullptr);
    all.Check(l1 ? "L1" : "L2");
  }
}

// One value less and one more than a block takes; more arrays than one launch takes.
TEST(CudaNesterovOnHost, Sizes) {
  std::vector<size_t> counts = {1, 255, 256, 257, 1023, 1024, 1025, 0, 3000};
  check_emulated<float>(counts);
  check_emulated<double>(counts);
  counts.resize(200, 5);
  check_emulated<float>(counts);
  check_emulated<double>(counts);
}

TEST(CudaNesterovOnHost, MoreThanAllBlocksTakeAtOnce) { check_emulated<float>({512 * 1024 + 300}); }

}  // namespace caffe_layers

#endif  // CPU_ONLY
