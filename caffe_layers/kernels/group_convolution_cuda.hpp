#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers {

/// The permutations of a chain as the CUDA kernels want them; to be copied to the device.
/// First where the first stage finds its input channels (its input_channel), then for each stage where its output
/// channels go: to the place where the next stage expects them, at last to the channel of top. If begins_depthwise,
/// then the channels of bottom that the second stage's inputs are made of.
std::vector<int> channel_tables(const GroupConvolutionChain& chain);

/// Is a depthwise stage, each channel with one output, followed by another stage?
bool begins_depthwise(const GroupConvolutionChain& chain);

/// One implementation of equation 4 on the current device. All pointers but those inside the chain are device pointers;
/// everything is queued on `stream`, nothing waits. Errors of launches are left in cudaPeekAtLastError().
/// The same device gives the same result every time.
template <typename T>
struct CudaGroupConvolutionKernel {
  const char* name;
  /// Does it handle this chain on this device?
  bool (*supports)(const GroupConvolutionChain& chain);
  /// Device memory that forward and backward need, in bytes.
  size_t (*workspace_bytes)(const GroupConvolutionChain& chain, bool backward);
  void (*forward)(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                  const ChainParameters<T>& parameters, ChainTop<T> top, void* workspace, cudaStream_t stream);
  /// From the gradient in front of residual and ReLU; gradients.skip is other memory than gradients.bottom.
  void (*backward)(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                   void* workspace, cudaStream_t stream);
};

/// As gradient_before_relu on the CPU; device pointers. y null: there is no ReLU, and this is a copy.
template <typename T>
void gradient_before_relu_cuda(size_t count, const T* y, const T* y_diff, T* diff, cudaStream_t stream);

/// All CUDA implementations, fastest first; the last, "stages", takes every chain.
template <typename T>
const std::vector<CudaGroupConvolutionKernel<T>>& cuda_group_convolution_kernels();

/// The first entry that supports the chain on this device.
template <typename T>
const CudaGroupConvolutionKernel<T>& pick_cuda_group_convolution_kernel(const GroupConvolutionChain& chain);

}  // namespace caffe_layers
