#include "caffe_layers/kernels/batch_norm_kernels.hpp"

#include "caffe_layers/kernels/batch_norm_entries.hpp"
#include "caffe_layers/kernels/cpu.hpp"

namespace caffe_layers {

template <typename T>
const std::vector<BatchNormKernel<T>>& batch_norm_kernels() {
  static const std::vector<BatchNormKernel<T>> kernels = {
#if defined(__x86_64__)
    {"avx2", cpu_has_avx2, batch_norm_forward_avx2, batch_norm_backward_avx2},
#endif
    {"portable", any_cpu, batch_norm_forward_portable, batch_norm_backward_portable},
    {"reference", any_cpu, batch_norm_forward_reference, batch_norm_backward_reference},
  };
  return kernels;
}

template <typename T>
const BatchNormKernel<T>& pick_batch_norm_kernel() {
  for (const auto& kernel : batch_norm_kernels<T>())
    if (kernel.runs_here()) return kernel;
  return reference_batch_norm_kernel<T>();
}

template <typename T>
const BatchNormKernel<T>& reference_batch_norm_kernel() {
  return batch_norm_kernels<T>().back();
}

#define INSTANTIATE(T)                                                     \
  template const std::vector<BatchNormKernel<T>>& batch_norm_kernels<T>(); \
  template const BatchNormKernel<T>& pick_batch_norm_kernel<T>();          \
  template const BatchNormKernel<T>& reference_batch_norm_kernel<T>();
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace caffe_layers
