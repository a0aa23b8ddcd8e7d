#pragma once

#include "caffe_layers/kernels/group_convolution_stages.cuh"

namespace caffe_layers {

/// More 1x1 stages than that go to "stages".
constexpr int kMaxPointwise = 8;

/// How a chain "any first stage, then 1x1 stages" is cut: a block takes a run of pixels of one image's output map
/// through all stages, with all channels of what lies between in shared memory. An array there has a row of `pixels`
/// values per channel.
struct TilePlan {
  /// The first stage is 1x1 too: its pixels are gathered into shared memory and all stages are 1x1 stages.
  bool gather;
  /// The first stage is 3x3, pad 1, and its maps let whole rows be read 16 bytes at a time.
  bool rows;
  int pixels, tiles_per_image, tiles;
  /// Values in shared memory before the input of each 1x1 stage, and, for backward, before the gradient of top.
  int offset[kMaxPointwise + 1] = {};  // the unused ones too: kept launches are compared by their bytes
  size_t shared_bytes;
};

/// False when the chain has another form, or when not even the smallest tile fits into this device's shared memory.
template <typename T>
bool plan_tiles(const GroupConvolutionChain& chain, bool backward, TilePlan* plan);

/// Position in the chain of 1x1 stage 0, and how many there are.
inline size_t first_pointwise(const TilePlan& plan) { return plan.gather ? 0 : 1; }
inline int pointwise_count(const GroupConvolutionChain& chain, const TilePlan& plan) {
  return static_cast<int>(chain.stages.size() - first_pointwise(plan));
}

template <typename T>
struct PointwiseStage {
  int in_channels, out_channels, group_in, group_out;
  /// Weights can be read 16 bytes at a time.
  bool vectors;
  const T *weight, *bias;
  const int* destination;
};

/// What both directions' kernels need to know.
template <typename T>
struct TileArguments {
  TilePlan plan;
  StageShape first;
  StageTables first_tables;
  const T *first_weight, *first_bias;
  int pointwise;
  PointwiseStage<T> stage[kMaxPointwise];
};
template <typename T>
TileArguments<T> tile_arguments(const GroupConvolutionChain& chain, const TilePlan& plan, const int* tables,
                                const T* bottom, const ChainParameters<T>& parameters);

template <typename T>
void tiles_forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, ChainTop<T> top, void* workspace, cudaStream_t stream);

template <typename T>
size_t tiles_workspace_bytes(const GroupConvolutionChain& chain, bool backward);

/// Recomputes what lies between, and leaves one partial sum of the parameters' gradients per block in the workspace.
template <typename T>
void tiles_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream);

/// Fused kernels: one launch forward, at most three backward.
template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_tiles();

}  // namespace caffe_layers
