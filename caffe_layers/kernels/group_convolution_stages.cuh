#pragma once

#include "caffe_layers/kernels/cuda_launch.cuh"
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
inline size_t weight_count(const StageShape& s) {
  return static_cast<size_t>(s.out_channels) * s.group_in * s.kernel * s.kernel;
}

/// Where one stage's channels lie: input channel i at source[i] (null: at i), output channel o at destination[o].
struct StageTables {
  const int* source;
  const int* destination;
};
/// `tables` as channel_tables() orders them.
StageTables stage_tables(const GroupConvolutionChain& chain, const int* tables, size_t stage);
/// What channel_tables() adds for a chain that begins_depthwise.
const int* depthwise_inputs(const GroupConvolutionChain& chain, const int* tables);
__device__ __forceinline__ int source_channel(const StageTables& tables, int channel) {
  return tables.source ? tables.source[channel] : channel;
}

/// What becomes of the convolutions' gradient with respect to bottom where it is stored.
template <typename T>
struct BottomFinish {
  const T* skip = nullptr;  // added; null: nothing
  const T* relu = nullptr;  // bottom, where it is a ReLU's top, whose gradient is taken after that; null: it is none

  __device__ __forceinline__ T operator()(T value, size_t at) const {
    if (skip) value += skip[at];
    return relu && !(relu[at] > 0) ? T(0) : value;
  }
  __device__ __forceinline__ Vector<T> operator()(Vector<T> value, size_t at) const {
    Vector<T> added = {}, y = {};
    if (skip) added = load_vector(skip + at);
    if (relu) y = load_vector(relu + at);
#pragma unroll
    for (int e = 0; e < Vector<T>::size; ++e) {
      value.at[e] = relu && !(y.at[e] > 0) ? T(0) : value.at[e] + added.at[e];
    }
    return value;
  }
};
template <typename T>
BottomFinish<T> bottom_finish(const ChainGradients<T>& gradients, const T* bottom) {
  return {gradients.skip, gradients.bottom_relu ? bottom : nullptr};
}

/// Gradient with respect to one stage's input, for every shape.
template <typename T>
void stage_backward_data(const StageShape& shape, const StageTables& tables, const T* weight, const T* out_diff,
                         const BottomFinish<T>& finish, T* in_diff, cudaStream_t stream);

/// Where the partial sums of a stage's parameters go: `entries` values per slice of the batch, this stage's from
/// `entry` on.
template <typename T>
struct PartialSums {
  T* partials;
  int slices, entry, entries;
};

/// Partial sums of one stage's weight and bias gradients, for every shape.
template <typename T>
void stage_weight_sums(const StageShape& shape, const StageTables& tables, const T* in, const T* out_diff,
                       const PartialSums<T>& sums, cudaStream_t stream);
template <typename T>
void stage_bias_sums(const StageShape& shape, const StageTables& tables, const T* out_diff, const PartialSums<T>& sums,
                     cudaStream_t stream);

/// Plain kernels that run one stage after the other, with what lies between in the workspace. Every chain.
template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_stages();

}  // namespace caffe_layers
