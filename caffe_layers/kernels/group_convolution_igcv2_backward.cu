#include "caffe_layers/kernels/group_convolution_igcv2.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/igcv2_pieces.cuh"
#include "caffe_layers/kernels/parameter_gradients.cuh"
#include "caffe_layers/kernels/spatial_gradients.cuh"

namespace caffe_layers {

namespace {

/// The gradient of the second 1x1 stage's weights in one branch, of this lane's pixels.
template <typename T, int K>
__device__ __forceinline__ void last_weight_sums(const T* in, const T* top_diff, const int* destination, int plane,
                                                 T* partials) {
  constexpr int V = Vector<T>::size, ROWS = BlockShape<T, K>::kRows, kPixels = BlockShape<T, K>::kPixels;
  for (int first_out = 0; first_out < K; first_out += kSide) {
    for (int first_in = 0; first_in < K; first_in += kSide) {
      T sums[kSums] = {};
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        Vector<T> x[kSide];
#pragma unroll
        for (int i = 0; i < kSide; ++i) x[i] = load_vector(in + (first_in + i) * kPixels + r * kLanes * V);
        const auto out_diff = [&](int o) {
          return load_vector(top_diff + static_cast<size_t>(destination[first_out + o]) * plane + r * kLanes * V);
        };
        add_weight_sums(x, out_diff, sums);
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
template <typename T, int K>
__device__ __forceinline__ void last_stage_backward(const SharedBlock<T, K>& shared, int branches, const T* top_diff,
                                                    int plane, T* partials) {
  constexpr int V = Vector<T>::size, ROWS = BlockShape<T, K>::kRows, kPixels = BlockShape<T, K>::kPixels;
  const int pixel = threadIdx.x % kLanes * V;
  for (int branch = threadIdx.x / kLanes; branch < branches; branch += kWarps) {
    const int* destination = shared.last_destination + branch * K;
    const T* weights = shared.last_weights + branch * K * K;
    T* in = shared.between + branch * K * kPixels + pixel;
    last_weight_sums<T, K>(in, top_diff + pixel, destination, plane, partials + branch * K * K);
    T sums[K][ROWS][V];
#pragma unroll
    for (int k = 0; k < K; ++k) {  // the gradient once more: registers do not hold both kinds of sums
      T d[ROWS][V];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const Vector<T> row =
            load_vector(top_diff + static_cast<size_t>(destination[k]) * plane + pixel + r * kLanes * V);
#pragma unroll
        for (int e = 0; e < V; ++e) d[r][e] = row.at[e];
      }
      add_input(k == 0, weights + k * K, d, sums);
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
    const T w = weights[BlockShape<T, K>::kTapsPadded + k];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
#pragma unroll
      for (int e = 0; e < V; ++e) {
        multiply_add(row == 0 && e == 0, d[k][row][e], depthwise[row][e], &sums[k]);
        multiply_add(k == 0, w, d[k][row][e], &diff[row][e]);
      }
    }
  }
  for_each_tap(in, tile, [&](int row, int tap, int e, T value) {
    multiply_add(row == 0 && e == 0, diff[row][e], value, tap < kTaps - 1 ? &sums[K + tap] : last_tap);
  });
#pragma unroll
  for (int row = 0; row < ROWS; ++row) store(in_diff + row * tile.width, as_vector(diff[row]));
}

/// The first 1x1 and the depthwise stage, whose output is computed again; a warp takes a branch.
template <typename T, int K>
__device__ __forceinline__ void first_stages_backward(const BlockArguments<T>& a, const T* bottom,
                                                      const BlockTile<T, BlockShape<T, K>::kRows>& tile,
                                                      const SharedBlock<T, K>& shared, T* between_diff,
                                                      T* first_partials, T* middle_partials) {
  using Shape = BlockShape<T, K>;
  constexpr int V = Vector<T>::size, ROWS = Shape::kRows;
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
      take_sums_over_lanes(sums, [&](int at, T sum) {
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
template <typename T, int K>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    backward_igcv2(const __grid_constant__ BlockArguments<T> a, const T* __restrict__ bottom,
                   const T* __restrict__ top_diff, T* __restrict__ between_diff, T* __restrict__ partials) {
  const SharedBlock<T, K> shared(a.channels);
  const BlockTile<T, BlockShape<T, K>::kRows> tile(a);
  T* const first = partials + static_cast<size_t>(blockIdx.x) * a.channels * (kTaps + 2 * K);
  T* const middle = first + a.channels * kTaps;
  wait_for_earlier_kernels();
  first_stages<T, K>(a, bottom, tile, shared);
  __syncthreads();
  let_next_kernel_start();
  last_stage_backward<T, K>(shared, a.channels / K, top_diff + tile.image + tile.first_pixel, a.height * a.width,
                            middle + a.channels * K);
  __syncthreads();
  first_stages_backward<T, K>(a, bottom, tile, shared, between_diff, first, middle);
}

size_t between_count(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages[0];
  return static_cast<size_t>(chain.batch) * s.out_channels * s.out_height * s.out_width;
}

}  // namespace

template <typename T>
void igcv2_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream) {
  const auto& weight = gradients.weight;
  const bool all = gradients.bottom && weight[0] && weight[1] && weight[2];
  if (!all || !is_vector_aligned(bottom) || !is_vector_aligned(top_diff)) {
    return tiles_backward(chain, tables, bottom, parameters, top_diff, gradients, workspace, stream);
  }
  const int tiles = igcv2_tiles<T>(chain);
  T* const between_diff = static_cast<T*>(workspace);
  T* const partials = between_diff + between_count(chain);
  with_block_shape<T>(chain, [&](auto shape) {
    launch_early(backward_igcv2<T, shape.kBranch>, dim3(tiles), igcv2_shared_bytes<T>(chain), stream,
                 block_arguments(chain, tables, parameters), bottom, top_diff, between_diff, partials);
  });
  Segments<T> segments;
  for (size_t s = 0; s < weight.size(); ++s) {
    segments.add(weight[s], static_cast<int>(weight_count(stage_shape(chain, s))));
  }
  add_partial_sums(partials, tiles, segments, stream);
  spatial_backward_data(stage_shape(chain, 0), stage_tables(chain, tables, 0), parameters.weight[0], between_diff,
                        bottom_finish(gradients, bottom), gradients.bottom, stream);
}

template void igcv2_backward<float>(const GroupConvolutionChain&, const int*, const float*,
                                    const ChainParameters<float>&, const float*, const ChainGradients<float>&, void*,
                                    cudaStream_t);
template void igcv2_backward<double>(const GroupConvolutionChain&, const int*, const double*,
                                     const ChainParameters<double>&, const double*, const ChainGradients<double>&,
                                     void*, cudaStream_t);

}  // namespace caffe_layers
