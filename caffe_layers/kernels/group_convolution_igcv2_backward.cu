#include "caffe_layers/kernels/group_convolution_igcv2.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/igcv2_pieces.cuh"
#include "caffe_layers/kernels/partial_sums.cuh"
#include "caffe_layers/kernels/spatial_gradients.cuh"

namespace caffe_layers {

namespace {

/// Partial sums of all tiles together take no more than this; for more tiles there is the backward of "tiles".
constexpr size_t kMaxPartialBytes = size_t(64) << 20;

/// Inputs and outputs of a branch whose weights' gradients are summed at a time.
constexpr int kSide = 8;

/// Adds up COUNT (16 or 32) values over a warp, and hands value i to take(i, sum) in one lane.
template <int COUNT, typename T, typename Take>
__device__ __forceinline__ void take_sums(T (&values)[COUNT], const Take& take) {
  constexpr int kHalf = COUNT / 2;
  scatter_sums_over_lanes<kHalf>(values);
#pragma unroll
  for (int mask = kHalf; mask < kLanes; mask *= 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) values[i] += __shfl_xor_sync(kAllLanes, values[i], mask);
  }
  const int lane = threadIdx.x % kLanes;
  if (lane >= kHalf) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) take(2 * lane + i, values[i]);
}

/// The gradient of the second 1x1 stage's weights in one branch: x its inputs, d its outputs' gradients.
template <typename T, int K, int ROWS>
__device__ __forceinline__ void last_weight_sums(const T* in, const T* top_diff, const int* destination, int plane,
                                                 T* partials) {
  constexpr int V = Vector<T>::size, kPixels = BlockShape<T, K, ROWS>::kPixels;
  for (int first_out = 0; first_out < K; first_out += kSide) {
    for (int first_in = 0; first_in < K; first_in += kSide) {
      T sums[kSide * kSide] = {};
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        Vector<T> x[kSide];
#pragma unroll
        for (int i = 0; i < kSide; ++i) x[i] = load_vector(in + (first_in + i) * kPixels + r * kLanes * V);
#pragma unroll
        for (int k = 0; k < kSide; ++k) {
          const size_t channel = destination[first_out + k];
          const Vector<T> d = load_vector(top_diff + channel * plane + r * kLanes * V);
#pragma unroll
          for (int i = 0; i < kSide; ++i) {
#pragma unroll
            for (int e = 0; e < V; ++e) sums[k * kSide + i] += d.at[e] * x[i].at[e];
          }
        }
      }
      scatter_sums_over_lanes(sums);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at = threadIdx.x % kLanes * 2 + j;
        partials[(first_out + at / kSide) * K + first_in + at % kSide] = sums[j];
      }
    }
  }
}

/// The second 1x1 stage: its weights' gradient, and its inputs' in the place of the inputs. A warp takes a branch.
template <typename T, int K, int ROWS>
__device__ __forceinline__ void last_stage_backward(const SharedBlock<T, K, ROWS>& shared, int branches,
                                                    const T* top_diff, int plane, T* partials) {
  constexpr int V = Vector<T>::size, kPixels = BlockShape<T, K, ROWS>::kPixels;
  const int pixel = threadIdx.x % kLanes * V;
  for (int branch = threadIdx.x / kLanes; branch < branches; branch += kWarps) {
    const int* destination = shared.last_destination + branch * K;
    const T* weights = shared.last_weights + branch * K * K;
    T* in = shared.between + branch * K * kPixels + pixel;
    last_weight_sums<T, K, ROWS>(in, top_diff + pixel, destination, plane, partials + branch * K * K);
    T sums[K][ROWS][V];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      T d[ROWS][V];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const Vector<T> row =
            load_vector(top_diff + static_cast<size_t>(destination[k]) * plane + pixel + r * kLanes * V);
#pragma unroll
        for (int e = 0; e < V; ++e) d[r][e] = row.at[e];
      }
      add_input<K, ROWS>(k == 0, weights + k * K, d, sums);
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
#pragma unroll
      for (int r = 0; r < ROWS; ++r) store_shared_vector(in + i * kPixels + r * kLanes * V, as_vector(sums[i][r]));
    }
  }
}

/// What becomes of one input of the first 1x1 stage, `in` the rows that it is made of and d the gradients of the
/// branch's outputs: its own gradient, to `in_diff`, and its share in both stages' weight gradients: sums[0 .. K - 1]
/// of the 1x1 stage, from K on the depthwise kernel's, but for its last tap.
template <int K, int ROWS, int COUNT, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void input_backward(const LaneRows<T, ROWS>& in, const BlockTile<T, ROWS>& tile,
                                               const T* weights, const T (&d)[K][ROWS][V], T* in_diff, T (&sums)[COUNT],
                                               T* last_tap) {
  T depthwise[ROWS][V], diff[ROWS][V];
  depthwise_rows(in, tile, weights, depthwise);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const T w = weights[BlockShape<T, K, ROWS>::kTapsPadded + k];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        multiply_add(row == 0 && e == 0, d[k][row][e], depthwise[row][e], &sums[k]);
        multiply_add(k == 0, w, d[k][row][e], &diff[row][e]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS + 2; ++r) {
    T window[V + 2];
    tile.window(in.at[r], window);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const int ky = r - row;
      if (ky < 0 || ky > 2) continue;
#pragma unroll
      for (int kx = 0; kx < 3; ++kx) {
        T* const sum = ky * 3 + kx < kTaps - 1 ? &sums[K + ky * 3 + kx] : last_tap;
#pragma unroll
        for (int e = 0; e < V; ++e) multiply_add(row == 0 && e == 0, diff[row][e], window[e + kx], sum);
      }
    }
  }
#pragma unroll
  for (int row = 0; row < ROWS; ++row) store(in_diff + row * tile.width, as_vector(diff[row]));
}

/// The first 1x1 and the depthwise stage, whose output is computed again; a warp takes a branch.
template <typename T, int K, int ROWS>
__device__ __forceinline__ void first_stages_backward(const BlockArguments<T>& a, const T* bottom,
                                                      const BlockTile<T, ROWS>& tile,
                                                      const SharedBlock<T, K, ROWS>& shared, T* between_diff,
                                                      T* first_partials, T* middle_partials) {
  using Shape = BlockShape<T, K, ROWS>;
  constexpr int V = Vector<T>::size;
  const int plane = a.height * a.width;
  const auto load_input = [&](int i) {
    return tile.load(bottom + tile.image + static_cast<size_t>(a.inputs[i]) * plane);
  };
  for (int branch = threadIdx.x / kLanes; branch < a.channels / K; branch += kWarps) {
    LaneRows<T, ROWS> rows = load_input(branch * K);
    T d[K][ROWS][V];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const T* row = shared.between + shared.middle_destination[branch * K + k] * Shape::kPixels + tile.pixel;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const Vector<T> some = load_vector(row + r * a.width);
#pragma unroll
        for (int e = 0; e < V; ++e) d[k][r][e] = some.at[e];
      }
    }
    for (int i = branch * K; i < (branch + 1) * K; ++i) {
      T* in_diff = between_diff + tile.image + static_cast<size_t>(i) * plane + tile.first_pixel + tile.pixel;
      T sums[K + kTaps - 1 <= 16 ? 16 : 32] = {}, last_tap;
      input_backward<K>(rows, tile, shared.input_weights + i * Shape::kInputWeights, d, in_diff, sums, &last_tap);
      if (i + 1 < (branch + 1) * K) rows = load_input(i + 1);  // on their way while lanes are summed
      T* const of_taps = first_partials + shared.depthwise_output[i] * kTaps;
      T* const of_weights = middle_partials + branch * K * K + (i - branch * K);
      take_sums(sums, [&](int at, T sum) {
        if (at < K) {
          of_weights[at * K] = sum;
        } else if (at < K + kTaps - 1) {
          of_taps[at - K] = sum;
        }
      });
      last_tap = sum_over_lanes(last_tap);
      if (threadIdx.x % kLanes == 0) of_taps[kTaps - 1] = last_tap;
    }
  }
}

/// Block = tile. between_diff: the gradient with respect to the depthwise stage's output, its channels in the order of
/// the next stage's inputs. partials: of the tile, the gradients of the stages' weights, one after the other.
template <typename T, int K, int ROWS>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    backward_igcv2(const __grid_constant__ BlockArguments<T> a, const T* __restrict__ bottom,
                   const T* __restrict__ top_diff, T* __restrict__ between_diff, T* __restrict__ partials) {
  const SharedBlock<T, K, ROWS> shared(a.channels);
  const BlockTile<T, ROWS> tile(a);
  T* const first = partials + static_cast<size_t>(blockIdx.x) * a.channels * (kTaps + 2 * K);
  T* const middle = first + a.channels * kTaps;
  wait_for_earlier_kernels();
  first_stages<T, K, ROWS>(a, bottom, tile, shared);
  __syncthreads();
  let_next_kernel_start();
  last_stage_backward<T, K, ROWS>(shared, a.channels / K, top_diff + tile.image + tile.first_pixel, a.height * a.width,
                                  middle + a.channels * K);
  __syncthreads();
  first_stages_backward<T, K, ROWS>(a, bottom, tile, shared, between_diff, first, middle);
}

size_t entry_count(const GroupConvolutionChain& chain) {
  size_t entries = 0;
  for (size_t s = 0; s < chain.stages.size(); ++s) entries += weight_count(stage_shape(chain, s));
  return entries;
}

/// Partial sums, and in front of them the gradient with respect to the depthwise stage's output.
template <typename T>
size_t partial_bytes(const GroupConvolutionChain& chain) {
  return igcv2_tiles<T>(chain) * entry_count(chain) * sizeof(T);
}
size_t between_count(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages[0];
  return static_cast<size_t>(chain.batch) * s.out_channels * s.out_height * s.out_width;
}

}  // namespace

template <typename T>
size_t igcv2_workspace_bytes(const GroupConvolutionChain& chain, bool backward) {
  if (!backward) return 0;
  const size_t partials = partial_bytes<T>(chain), ours = between_count(chain) * sizeof(T) + partials;
  const size_t tiles = tiles_workspace_bytes<T>(chain, true);  // for what igcv2_backward leaves to it
  return partials > kMaxPartialBytes || ours < tiles ? tiles : ours;
}

template <typename T>
void igcv2_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream) {
  const auto& weight = gradients.weight;
  const bool all = gradients.bottom && weight[0] && weight[1] && weight[2];
  if (!all || !is_vector_aligned(bottom) || !is_vector_aligned(top_diff) ||
      partial_bytes<T>(chain) > kMaxPartialBytes) {
    return tiles_backward(chain, tables, bottom, parameters, top_diff, gradients, workspace, stream);
  }
  const BlockArguments<T> arguments = block_arguments(chain, tables, parameters);
  const int tiles = igcv2_tiles<T>(chain);
  T* const between_diff = static_cast<T*>(workspace);
  T* const partials = between_diff + between_count(chain);
  launch_early(branch_channels(chain) == 8 ? backward_igcv2<T, 8, 2> : backward_igcv2<T, 16, 1>, dim3(tiles),
               igcv2_shared_bytes<T>(chain), stream, arguments, bottom, top_diff, between_diff, partials);
  Segments<T> segments;
  for (size_t s = 0; s < weight.size(); ++s) {
    segments.add(weight[s], static_cast<int>(weight_count(stage_shape(chain, s))));
  }
  add_partial_sums(partials, tiles, segments, stream);
  spatial_backward_data(stage_shape(chain, 0), stage_tables(chain, tables, 0), parameters.weight[0], between_diff,
                        bottom_finish(gradients, bottom), gradients.bottom, stream);
}

template size_t igcv2_workspace_bytes<float>(const GroupConvolutionChain&, bool);
template size_t igcv2_workspace_bytes<double>(const GroupConvolutionChain&, bool);
template void igcv2_backward<float>(const GroupConvolutionChain&, const int*, const float*,
                                    const ChainParameters<float>&, const float*, const ChainGradients<float>&, void*,
                                    cudaStream_t);
template void igcv2_backward<double>(const GroupConvolutionChain&, const int*, const double*,
                                     const ChainParameters<double>&, const double*, const ChainGradients<double>&,
                                     void*, cudaStream_t);

}  // namespace caffe_layers
