#pragma once

#include "caffe_layers/kernels/group_convolution_igcv2.cuh"
#include "caffe_layers/kernels/lane_sums.cuh"
#include "caffe_layers/kernels/spatial_pieces.cuh"

// What the kernels of IGC-V2's block, forward and backward, are made of (group_convolution_igcv2.cuh). A tile is a run
// of whole rows of one image with all channels, which a block of threads takes.

namespace caffe_layers {

/// Of K channels per branch.
template <typename T, int K>
struct BlockShape {
  static constexpr int kBranch = K;
  /// Rows of a map that a lane computes: with all outputs of a branch as many sums as its registers hold.
  static constexpr int kRows = 16 / K;
  /// In shared memory, of each input of the first 1x1 stage: its depthwise kernel, then its weights in the branch.
  static constexpr int kTapsPadded = 12, kInputWeights = kTapsPadded + K;
  /// Pixels of a tile; each lane of a warp computes kRows vectors.
  static constexpr int kPixels = kLanes * Vector<T>::size * kRows;

  static size_t shared_bytes(int channels) {
    return channels * ((kInputWeights + K + kPixels) * sizeof(T) + 3 * sizeof(int));
  }
};

/// use(shape), with the BlockShape of this chain's branches.
template <typename T, typename Use>
auto with_block_shape(const GroupConvolutionChain& chain, const Use& use) {
  return branch_channels(chain) == 8 ? use(BlockShape<T, 8>()) : use(BlockShape<T, 16>());
}

/// The block's sizes and parameters, and how its maps are cut.
template <typename T>
struct BlockArguments {
  int channels, height, width, tile_rows, tiles_per_image;
  /// Vectors in a row.
  Divisor columns;
  /// Channels of bottom in the order of the first 1x1 stage's inputs; then where each stage's outputs go.
  const int *inputs, *first_destination, *middle_destination, *last_destination;
  const T *first_weight, *middle_weight, *last_weight;
};

template <typename T>
BlockArguments<T> block_arguments(const GroupConvolutionChain& chain, const int* tables,
                                  const ChainParameters<T>& parameters);

/// What a block of threads keeps in shared memory.
template <typename T, int K>
struct SharedBlock {
  using Shape = BlockShape<T, K>;
  T *input_weights, *last_weights, *between;
  /// Of each input of the first 1x1 stage the depthwise output that it is; where the 1x1 stages' outputs go.
  int *depthwise_output, *middle_destination, *last_destination;

  __device__ __forceinline__ explicit SharedBlock(int channels)
      : input_weights(shared_memory<T>()),
        last_weights(input_weights + channels * Shape::kInputWeights),
        between(last_weights + channels * K),
        depthwise_output(reinterpret_cast<int*>(between + channels * Shape::kPixels)),
        middle_destination(depthwise_output + channels),
        last_destination(middle_destination + channels) {}
};

/// A thread's share of the weights and tables of kChannels channels on their way to shared memory: all are asked for
/// before the first is stored, so that they are waited for once.
template <typename T, int K>
struct ParametersOnTheWay {
  using Shape = BlockShape<T, K>;
  static constexpr int kChannels = 8 * K, kTapsPerThread = ceil_div(kChannels * kTaps, kThreads),
                       kWeightsPerThread = ceil_div(kChannels * K, kThreads);
  static_assert(kChannels <= kThreads, "a thread takes one channel's tables");
  T taps[kTapsPerThread], middle[kWeightsPerThread], last[kWeightsPerThread];
  int input[kTapsPerThread], middle_destination, last_destination;

  /// How many channels there are from `first` on.
  static __device__ __forceinline__ int share(const BlockArguments<T>& a, int first) {
    return a.channels - first < kChannels ? a.channels - first : kChannels;
  }

  __device__ __forceinline__ void load(const BlockArguments<T>& a, int first) {
    const int channels = share(a, first);
#pragma unroll
    for (int j = 0; j < kTapsPerThread; ++j) {
      const int at = threadIdx.x + j * kThreads;
      if (at >= channels * kTaps) continue;
      taps[j] = a.first_weight[first * kTaps + at];
      input[j] = a.first_destination[first + at / kTaps];
    }
#pragma unroll
    for (int j = 0; j < kWeightsPerThread; ++j) {
      const int at = threadIdx.x + j * kThreads;
      if (at >= channels * K) continue;
      middle[j] = a.middle_weight[first * K + at];
      last[j] = a.last_weight[first * K + at];
    }
    if (threadIdx.x >= channels) return;
    middle_destination = a.middle_destination[first + threadIdx.x];
    last_destination = a.last_destination[first + threadIdx.x];
  }

  __device__ __forceinline__ void store(const BlockArguments<T>& a, int first, const SharedBlock<T, K>& shared) const {
    const int channels = share(a, first);
#pragma unroll
    for (int j = 0; j < kTapsPerThread; ++j) {
      const int at = threadIdx.x + j * kThreads;
      if (at >= channels * kTaps) continue;
      shared.input_weights[input[j] * Shape::kInputWeights + at % kTaps] = taps[j];
      if (at % kTaps == 0) shared.depthwise_output[input[j]] = first + at / kTaps;
    }
#pragma unroll
    for (int j = 0; j < kWeightsPerThread; ++j) {
      const int at = threadIdx.x + j * kThreads, output = first + at / K;
      if (at >= channels * K) continue;
      const int in = output / K * K + at % K;
      shared.input_weights[in * Shape::kInputWeights + Shape::kTapsPadded + output % K] = middle[j];
      shared.last_weights[first * K + at] = last[j];
    }
    if (threadIdx.x >= channels) return;
    shared.middle_destination[first + threadIdx.x] = middle_destination;
    shared.last_destination[first + threadIdx.x] = last_destination;
  }
};

/// The rows of one map that ROWS output rows from the lane's position on read.
template <typename T, int ROWS>
struct LaneRows {
  Vector<T> at[ROWS + 2];
};

/// A tile, and what this thread computes of it in the first two stages: ROWS rows of a vector.
template <typename T, int ROWS>
struct BlockTile {
  size_t image;     // where it begins in bottom
  int first_pixel;  // of the tile in a map
  int pixel;        // of the thread in the tile
  int row_above;    // the one above that, in a map
  int width;
  bool above, below, left, right;  // is there something in the map?

  __device__ __forceinline__ explicit BlockTile(const BlockArguments<T>& a) : width(a.width) {
    constexpr int V = Vector<T>::size;
    image = static_cast<size_t>(blockIdx.x / a.tiles_per_image) * a.channels * a.height * a.width;
    const int first_row = blockIdx.x % a.tiles_per_image * a.tile_rows;
    unsigned column = threadIdx.x % kLanes;
    const int row = a.columns.divide(&column) * ROWS, x = column * V, y = first_row + row;
    first_pixel = first_row * width;
    pixel = row * width + x;
    row_above = (y - 1) * width + x;
    above = y > 0;
    below = y + ROWS < a.height;
    left = x > 0;
    right = x + V < width;
  }

  __device__ __forceinline__ LaneRows<T, ROWS> load(const T* map) const {
    LaneRows<T, ROWS> rows = {};
    if (above) rows.at[0] = load_vector(map + row_above);
#pragma unroll
    for (int r = 1; r <= ROWS; ++r) rows.at[r] = load_vector(map + row_above + r * width);
    if (below) rows.at[ROWS + 1] = load_vector(map + row_above + (ROWS + 1) * width);
    return rows;
  }

  /// What V + 2 columns around the thread's hold: the lanes beside have what lies beside its vector.
  __device__ __forceinline__ void window(const Vector<T>& row, T (&values)[Vector<T>::size + 2]) const {
    constexpr int V = Vector<T>::size;
    const T before = __shfl_up_sync(kAllLanes, row.at[V - 1], 1), after = __shfl_down_sync(kAllLanes, row.at[0], 1);
    values[0] = left ? before : T(0);
    values[V + 1] = right ? after : T(0);
#pragma unroll
    for (int e = 0; e < V; ++e) values[1 + e] = row.at[e];
  }
};

/// sum = w * x for the first product, sum += w * x for the others: no sums to be cleared.
template <typename T>
__device__ __forceinline__ void multiply_add(bool first, T w, T x, T* sum) {
  *sum = first ? w * x : *sum + w * x;
}

/// visit(row, tap, e, value) for each value that output e of row `row` meets under a tap; the taps in their order.
template <int ROWS, typename T, typename Visit>
__device__ __forceinline__ void for_each_tap(const LaneRows<T, ROWS>& in, const BlockTile<T, ROWS>& tile,
                                             const Visit& visit) {
  constexpr int V = Vector<T>::size;
#pragma unroll
  for (int r = 0; r < ROWS + 2; ++r) {
    T window[V + 2];
    tile.window(in.at[r], window);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const int ky = r - row;
      if (ky < 0 || ky > 2) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) {
#pragma unroll
        for (int kx = 0; kx < 3; ++kx) visit(row, ky * 3 + kx, e, window[e + kx]);
      }
    }
  }
}

/// The depthwise convolution of one map.
template <int ROWS, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void depthwise_rows(const LaneRows<T, ROWS>& in, const BlockTile<T, ROWS>& tile,
                                               const T* weights, T (&sums)[ROWS][V]) {
  T w[kTaps];
#pragma unroll
  for (int tap = 0; tap + V <= kTaps; tap += V) {
    const Vector<T> some = load_vector(weights + tap);
#pragma unroll
    for (int e = 0; e < V; ++e) w[tap + e] = some.at[e];
  }
  w[kTaps - 1] = weights[kTaps - 1];
  for_each_tap(in, tile,
               [&](int row, int tap, int e, T value) { multiply_add(tap == 0, w[tap], value, &sums[row][e]); });
}

/// sums[k] (+)= weights[k] * x, for all outputs k of a branch.
template <int K, int ROWS, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void add_input(bool first, const T* weights, const T (&x)[ROWS][V], T (&sums)[K][ROWS][V]) {
#pragma unroll
  for (int some = 0; some < K; some += V) {
    const Vector<T> w = load_vector(weights + some);
#pragma unroll
    for (int j = 0; j < V; ++j) {
#pragma unroll
      for (int row = 0; row < ROWS; ++row) {
#pragma unroll
        for (int e = 0; e < V; ++e) multiply_add(first, w.at[j], x[row][e], &sums[some + j][row][e]);
      }
    }
  }
}

template <typename T, int V = Vector<T>::size>
__device__ __forceinline__ Vector<T> as_vector(const T (&values)[V]) {
  Vector<T> vector;
#pragma unroll
  for (int e = 0; e < V; ++e) vector.at[e] = values[e];
  return vector;
}

/// The depthwise and the first 1x1 stage: a warp takes a branch. Leaves the results, and all weights, in shared memory.
template <typename T, int K>
__device__ __forceinline__ void first_stages(const BlockArguments<T>& a, const T* bottom,
                                             const BlockTile<T, BlockShape<T, K>::kRows>& tile,
                                             const SharedBlock<T, K>& shared) {
  using Shape = BlockShape<T, K>;
  constexpr int ROWS = Shape::kRows;
  const int branches = a.channels / K, plane = a.height * a.width;
  const T* image = bottom + tile.image;
  const auto load_input = [&](int input, int i) {
    const int channel = __shfl_sync(kAllLanes, input, i);
    return tile.load(image + static_cast<size_t>(channel) * plane);
  };
  int branch = threadIdx.x / kLanes;
  // As early as can be, in front of all that the weights take; warps without a branch load what they never use.
  int input = a.inputs[(branch < branches ? branch : 0) * K + threadIdx.x % K];
  ParametersOnTheWay<T, K> parameters;
  parameters.load(a, 0);
  LaneRows<T, ROWS> rows = load_input(input, 0);
  parameters.store(a, 0, shared);
  for (int first = parameters.kChannels; first < a.channels; first += parameters.kChannels) {
    parameters.load(a, first);
    parameters.store(a, first, shared);
  }
  __syncthreads();
  while (branch < branches) {
    const T* weights = shared.input_weights + branch * K * Shape::kInputWeights;
    T sums[K][ROWS][Vector<T>::size];
#pragma unroll
    for (int i = 0; i < K; ++i, weights += Shape::kInputWeights) {
      if (i > 0) rows = load_input(input, i);
      T depthwise[ROWS][Vector<T>::size];
      depthwise_rows(rows, tile, weights, depthwise);
      add_input(i == 0, weights + Shape::kTapsPadded, depthwise, sums);
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      T* row = shared.between + shared.middle_destination[branch * K + k] * Shape::kPixels + tile.pixel;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) store_shared_vector(row + r * a.width, as_vector(sums[k][r]));
    }
    branch += kWarps;
    if (branch >= branches) break;  // this check here, not on the way in: registers spill less
    input = a.inputs[branch * K + threadIdx.x % K];
    rows = load_input(input, 0);
  }
}

}  // namespace caffe_layers
