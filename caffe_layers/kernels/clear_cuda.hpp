#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace caffe_layers {

/// `bytes` bytes of device memory, a multiple of 4.
struct DeviceArray {
  void* address;
  std::size_t bytes;
};

/// Sets all arrays to zero, queued on `stream`: one launch for every 240 of them. The table of arrays itself is read
/// before the function returns.
void clear_arrays_cuda(const DeviceArray* arrays, int count, cudaStream_t stream);

}  // namespace caffe_layers
