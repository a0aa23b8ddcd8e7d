#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers_test {

/// The fused kernels with vectors as wide as AVX-512's, for any CPU: what depends on their width alone (blocks of
/// outputs, panels, ends of rows) is tested where AVX-512 is not to be had.
template <typename T>
std::vector<caffe_layers::GroupConvolutionKernel<T>> wide_kernels();

}  // namespace caffe_layers_test
