#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace caffe_layers {

/// permute_channels() for device pointers: top[n][c] = bottom[n][perm[c]], planes of `plane` values.
template <typename T>
void permute_channels_cuda(const T* bottom, const int* perm, int batch, int channels, size_t plane, T* top,
                           cudaStream_t stream);

}  // namespace caffe_layers
