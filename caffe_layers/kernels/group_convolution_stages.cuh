#pragma once

#include "caffe_layers/kernels/group_convolution_cuda.hpp"

namespace caffe_layers {

/// A GroupConvolutionStage that can be handed to a kernel.
struct StageShape {
  int batch;
  int in_channels, out_channels, group_in, group_out;
  int kernel, stride, pad, dilation;
  int in_height, in_width, out_height, out_width;
};
StageShape stage_shape(const GroupConvolutionChain& chain, size_t stage);

/// Where one stage's channels lie: input channel i at source[i] (null: at i), output channel o at destination[o].
struct StageTables {
  const int* source;
  const int* destination;
};
/// `tables` as channel_tables() orders them.
StageTables stage_tables(const GroupConvolutionChain& chain, const int* tables, size_t stage);

/// Gradient with respect to one stage's input, for every shape.
template <typename T>
void stage_backward_data(const StageShape& shape, const StageTables& tables, const T* weight, const T* out_diff,
                         T* in_diff, cudaStream_t stream);

/// Plain kernels that run one stage after the other, with what lies between in the workspace. Every chain.
template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_stages();

}  // namespace caffe_layers
