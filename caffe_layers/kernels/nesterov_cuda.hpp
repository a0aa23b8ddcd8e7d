#pragma once

#include <cuda_runtime.h>

#include "caffe_layers/kernels/nesterov_kernels.hpp"

namespace caffe_layers {

/// The update of nesterov_kernels.hpp for arrays of device pointers, queued on `stream`: one launch for every 101
/// arrays (float; 84 double). The table of arrays itself is read before the function returns.
template <typename T>
void nesterov_update_cuda(const ParameterArray<T>* parameters, int arrays, const NesterovStep<T>& step,
                          cudaStream_t stream);

}  // namespace caffe_layers
