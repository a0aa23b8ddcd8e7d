#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/lane_sums.cuh"
#include "caffe_layers/kernels/partial_sums.cuh"

namespace caffe_layers {

/// Inputs and outputs of a 1x1 stage whose weights' gradients a thread sums at a time.
constexpr int kSide = kChannelsPerThread;
constexpr int kSums = kSide * kSide;
static_assert(kSums == 2 * kLanes, "scatter_sums_over_lanes");

/// sums[o][i] += out_diff(o) * x[i], over WIDTH pixels.
template <int WIDTH, typename T, typename Load>
__device__ __forceinline__ void add_weight_sums(const Pack<T, WIDTH> (&x)[kSide], const Load& out_diff,
                                                T (&sums)[kSums]) {
#pragma unroll
  for (int o = 0; o < kSide; ++o) {
    const Pack<T, WIDTH> d = out_diff(o);
#pragma unroll
    for (int i = 0; i < kSide; ++i) {
#pragma unroll
      for (int e = 0; e < WIDTH; ++e) sums[o * kSide + i] += d.at[e] * x[i].at[e];
    }
  }
}

/// One 1x1 stage's weight gradient: sums over all pixels of products of input and output gradient.
template <typename T>
struct PointwiseGradient {
  StageTables tables;
  const T *in, *out_diff;
  int in_channels, out_channels, group_in, group_out;
  /// Blocks of kChannelsPerThread inputs and outputs in a group; a unit is one of each, in one group.
  Divisor in_blocks, out_blocks;
  int first_unit, entry;
};

/// Those of a chain.
template <typename T>
struct PointwiseGradients {
  int stages;
  PointwiseGradient<T> stage[kMaxPointwise];
  int plane, entries;
};

/// The gradients of a chain's parameters, from what goes into each stage and the gradient of what comes out: partial
/// sums over slices of the batch, and at last the sums of those, added to what the gradients hold.
template <typename T>
class ParameterGradients {
 public:
  ParameterGradients(const GroupConvolutionChain& chain, const ChainGradients<T>& gradients, T* partials,
                     cudaStream_t stream);

  /// Of stage s; `tables` say where the channels of `in` and `out_diff` lie. `in` of a 1x1 stage has the size of its
  /// output's maps. Nothing happens where the gradient is not asked for.
  void pointwise(size_t s, const StageTables& tables, const T* in, const T* out_diff);
  void spatial(size_t s, const StageTables& tables, const T* in, const T* out_diff);
  void bias(size_t s, const StageTables& tables, const T* out_diff);
  /// To be called after those.
  void add_up();

 private:
  const GroupConvolutionChain& chain_;
  T* partials_;
  cudaStream_t stream_;
  int slices_;
  Segments<T> segments_;
  std::vector<int> weight_entry_, bias_entry_;  // by stage; -1: not asked for
  PointwiseGradients<T> pointwise_ = {};
  bool aligned_ = true;  // all of pointwise_
  int units_ = 0;
};

/// Values that the partial sums of a chain take.
template <typename T>
size_t partial_sum_count(const GroupConvolutionChain& chain);

}  // namespace caffe_layers
