#pragma once

#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers {

/// The plain implementation: image by image, stage by stage, one loop nest per equation, on one thread. It takes every
/// chain; the fast kernels are checked against it.
template <typename T>
GroupConvolutionKernel<T> group_convolution_reference();

}  // namespace caffe_layers
