#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers {

/// The fused kernels' rows of the kernel table, fastest first.
template <typename T>
std::vector<GroupConvolutionKernel<T>> fused_group_convolution_kernels();

}  // namespace caffe_layers
