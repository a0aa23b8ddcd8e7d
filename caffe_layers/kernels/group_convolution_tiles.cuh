#pragma once

#include "caffe_layers/kernels/group_convolution_stages.cuh"

namespace caffe_layers {

/// More 1x1 stages than that go to "stages".
constexpr int kMaxPointwise = 8;

/// Channels of a 1x1 stage that a thread computes at a time.
constexpr int kChannelsPerThread = 8;

/// Blocks of a tile kernel that a multiprocessor runs at a time, if shared memory allows: with a third one, registers
/// spill to memory, which costs more than it hides (1.2 times the time of a block of IGC-V2, H200).
constexpr int kTileBlocks = 2;

/// How a chain "any first stage, then 1x1 stages" is cut: a block takes a run of pixels of one image's output map
/// through all stages, with all channels of what lies between in shared memory. An array there has a row of `pixels`
/// values per channel; two arrays take turns, the inputs of the even and of the odd 1x1 stages, and their gradients.
struct TilePlan {
  /// The first stage is 1x1 too: its pixels are gathered into shared memory and all stages are 1x1 stages.
  bool gather;
  /// The first stage is 3x3, pad 1, and its maps let whole rows be read 16 bytes at a time; a thread computes
  /// rows_per_thread of them.
  bool rows;
  int rows_per_thread;
  int pixels, tiles_per_image, tiles;
  /// Values in shared memory before the inputs of the odd 1x1 stages.
  int odd_offset;
  /// Vectors in a row of an array; vectors in a row of the map, and chunks of rows_per_thread rows in a tile.
  Divisor vectors_per_row, columns, row_chunks;
  size_t shared_bytes;
};

/// False when the chain has another form, or when not even the smallest tile fits into this device's shared memory.
template <typename T>
bool plan_tiles(const GroupConvolutionChain& chain, TilePlan* plan);

/// Position in the chain of 1x1 stage 0, and how many there are.
inline size_t first_pointwise(const TilePlan& plan) { return plan.gather ? 0 : 1; }
inline int pointwise_count(const GroupConvolutionChain& chain, const TilePlan& plan) {
  return static_cast<int>(chain.stages.size() - first_pointwise(plan));
}

template <typename T>
struct PointwiseStage {
  int in_channels, out_channels, group_in, group_out, groups;
  /// Weights can be read 16 bytes at a time.
  bool vector_weights;
  /// Parts of a group's inputs and outputs that a thread takes at a time.
  Divisor in_parts, out_parts;
  const T *weight, *bias;
  const int* destination;
};

/// What both directions' kernels need to know.
template <typename T>
struct TileArguments {
  TilePlan plan;
  StageShape first;
  Divisor first_group_out;
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

/// Recomputes what lies between and leaves it, and its gradients, in the workspace, where the parameters' gradients are
/// made of it.
template <typename T>
void tiles_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream);

/// Fused kernels: one launch forward. Backward: one through the 1x1 stages, one for all of their weights, one each for
/// a 3x3 first stage's weights and for bottom's gradient through it, one for each stage's biases, one for all sums.
template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_tiles();

}  // namespace caffe_layers
