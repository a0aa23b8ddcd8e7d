#pragma once

// What the fused CPU kernels and their callers share. Plain data only: the kernels are compiled once per instruction
// set, and an inline function or template of the standard library compiled there could replace the baseline copy at
// link time.

#include <cstddef>

namespace caffe_layers {

/// What fixed-size tables in the kernels hold; longer chains and larger strides are left to the reference.
constexpr int kFusedMaxStages = 16, kFusedMaxStride = 16;

/// GroupConvolutionStage without its vectors; group_inputs and group_outputs are the channels of one group.
struct FusedStage {
  int in_channels, out_channels, group, group_inputs, group_outputs;
  int kernel, stride, pad, dilation;
  int in_height, in_width, out_height, out_width;
  const int* input_channel;
};

struct FusedChain {
  int batch, num_stages, threads;
  const FusedStage* stages;
  /// Channel o of the last stage is channel output_position[o] of the top (the inverse of output_channel).
  const int* output_position;
  bool relu;  ///< of the top, after the residual
};

/// Arrays with one pointer per stage, as in ChainParameters and ChainGradients.
template <typename T>
struct FusedParameters {
  const T* const* weight;
  const T* const* bias;
};

/// As ChainTop; residual may be null.
template <typename T>
struct FusedTop {
  T* data;
  const T* residual;
};

template <typename T>
struct FusedGradients {
  T* bottom;
  const T* skip;
  bool bottom_relu;
  T* const* weight;
  T* const* bias;
};

template <typename T>
struct FusedKernel {
  size_t (*workspace_bytes)(const FusedChain& chain, bool backward);
  void (*forward)(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                  const FusedTop<T>& top, void* workspace);
  void (*backward)(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters, const T* top_diff,
                   const FusedGradients<T>& gradients, void* workspace);
};

/// The same source (simd/*.hpp) compiled for three instruction sets: chains image by image, and Winograd's algorithm
/// for a single 3x3 convolution.
template <typename T>
FusedKernel<T> fused_portable();
template <typename T>
FusedKernel<T> fused_avx2();
template <typename T>
FusedKernel<T> fused_avx512();
template <typename T>
FusedKernel<T> winograd_portable();
template <typename T>
FusedKernel<T> winograd_avx2();
template <typename T>
FusedKernel<T> winograd_avx512();

}  // namespace caffe_layers
