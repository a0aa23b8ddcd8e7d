#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "caffe_layers/kernels/batch_norm_operands.hpp"

namespace caffe_layers {

/// Stock BatchNorm's moving sums, in device memory: mean and variance of each channel, one factor that both are divided
/// by when they are used.
template <typename T>
struct MovingStatistics {
  T *mean, *variance, *factor;
  /// What is kept of each when a batch is added.
  T fraction;
};

/// Device memory that either pass needs, in bytes.
size_t batch_norm_workspace_bytes_cuda(const BatchNormShape& shape);

/// The passes of batch_norm_operands.hpp for device pointers, queued on `stream`; two launches each. Sums are taken in
/// an order that depends on the shape alone. Unlike on the CPU, forward also looks after the moving sums: with batch
/// statistics it adds them, otherwise it reads mean and variance from them; it writes pass.mean and pass.variance in
/// both cases.
template <typename T>
void batch_norm_forward_cuda(const BatchNormForward<T>& pass, const MovingStatistics<T>& moving, void* workspace,
                             cudaStream_t stream);
template <typename T>
void batch_norm_backward_cuda(const BatchNormBackward<T>& pass, void* workspace, cudaStream_t stream);

}  // namespace caffe_layers
