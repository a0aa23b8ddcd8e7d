#include "caffe_layers/kernels/nesterov_kernels.hpp"

namespace caffe_layers {

// No kernels for single instruction sets: parameters are few beside activations, and SSE already moves them at the
// speed of the cache they lie in.
template <typename T>
const std::vector<NesterovKernel<T>>& nesterov_kernels() {
  static const std::vector<NesterovKernel<T>> kernels = {
      {"parallel", nesterov_update_parallel<T>},
      {"reference", nesterov_update_reference<T>},
  };
  return kernels;
}

template const std::vector<NesterovKernel<float>>& nesterov_kernels<float>();
template const std::vector<NesterovKernel<double>>& nesterov_kernels<double>();

}  // namespace caffe_layers
