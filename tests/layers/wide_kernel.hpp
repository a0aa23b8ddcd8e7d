#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers_test {

/// The fused kernels with vectors as wide as AVX-512's, for any CPU: what depends on their width alone (blocks of
/// outputs, panels, ends of rows) is tested where AVX-512 is not to be had. None in builds with CUDA, whose bundle they
/// would make 8 MB larger: builds without it test them.
template <typename T>
std::vector<caffe_layers::GroupConvolutionKernel<T>> wide_kernels()
#ifdef CPU_ONLY
    ;
#else
{
  return {};
}
#endif

}  // namespace caffe_layers_test
