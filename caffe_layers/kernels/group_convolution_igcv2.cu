#include "caffe_layers/kernels/group_convolution_igcv2.cuh"

#include <algorithm>

#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/igcv2_pieces.cuh"
#include "caffe_layers/kernels/tile_rows.cuh"

namespace caffe_layers {

namespace {

/// The second 1x1 stage: a warp takes a branch.
template <typename T, int K, typename Rows>
__device__ __forceinline__ void last_stage(const SharedBlock<T, K>& shared, int branches, const Rows& top) {
  constexpr int V = Vector<T>::size, ROWS = BlockShape<T, K>::kRows, kPixels = BlockShape<T, K>::kPixels;
  const int pixel = threadIdx.x % kLanes * V;
  for (int branch = threadIdx.x / kLanes; branch < branches; branch += kWarps) {
    const T* weights = shared.last_weights + branch * K * K;
    const T* in = shared.between + branch * K * kPixels + pixel;
    T sums[K][ROWS][V];
#pragma unroll
    for (int i = 0; i < K; i += V) {
      Vector<T> x[V][ROWS];
#pragma unroll
      for (int j = 0; j < V; ++j) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) x[j][r] = load_vector(in + (i + j) * kPixels + r * kLanes * V);
      }
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const Vector<T> w = load_vector(weights + k * K + i);
#pragma unroll
        for (int j = 0; j < V; ++j) {
#pragma unroll
          for (int r = 0; r < ROWS; ++r) {
#pragma unroll
            for (int e = 0; e < V; ++e) multiply_add(i + j == 0, w.at[j], x[j][r].at[e], &sums[k][r][e]);
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int channel = shared.last_destination[branch * K + k];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) store_pixels(top, channel, pixel + r * kLanes * V, as_vector(sums[k][r]));
    }
  }
}

/// FINISHED: with a residual (null: none) or a ReLU. Block = tile.
template <typename T, int K, bool FINISHED>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    forward_igcv2(const __grid_constant__ BlockArguments<T> a, const T* __restrict__ bottom,
                  const T* __restrict__ residual, bool relu, T* __restrict__ top) {
  const SharedBlock<T, K> shared(a.channels);
  const BlockTile<T, BlockShape<T, K>::kRows> tile(a);
  wait_for_earlier_kernels();
  first_stages<T, K>(a, bottom, tile, shared);
  __syncthreads();
  let_next_kernel_start();
  const size_t offset = tile.image + tile.first_pixel;
  const PlaneRows<T> rows = {top + offset, a.height * a.width, BlockShape<T, K>::kPixels, true};
  if constexpr (FINISHED) {
    last_stage<T, K>(shared, a.channels / K,
                     FinishedRows<T>(rows, residual ? residual + offset : nullptr, relu, nullptr));
  } else {
    last_stage<T, K>(shared, a.channels / K, rows);
  }
}

/// Pixels of a tile.
template <typename T>
int tile_pixels(const GroupConvolutionChain& chain) {
  return with_block_shape<T>(chain, [](auto shape) { return int(shape.kPixels); });
}

bool keeps_sizes(const GroupConvolutionStage& s) { return s.in_channels == s.out_channels && s.stride == 1; }

template <typename T>
bool supports(const GroupConvolutionChain& chain) {
  TilePlan tiles;
  const auto& stages = chain.stages;
  if (stages.size() != 3 || !begins_depthwise(chain) || !plan_tiles<T>(chain, &tiles) || !tiles.rows) return false;
  if (!std::all_of(stages.begin(), stages.end(), keeps_sizes)) return false;
  if (std::any_of(stages.begin(), stages.end(), [](const GroupConvolutionStage& s) { return s.bias; })) return false;
  const int branch = branch_channels(chain);
  if (stages[1].group != stages[2].group || (branch != 8 && branch != 16)) return false;
  const GroupConvolutionStage& s = stages[0];
  if (kLanes * Vector<T>::size % s.out_width != 0 || s.out_height % (tile_pixels<T>(chain) / s.out_width) != 0) {
    return false;
  }
  return kTileBlocks * igcv2_shared_bytes<T>(chain) <=
         static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

template <typename T>
void igcv2_forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, ChainTop<T> top, void* workspace, cudaStream_t stream) {
  if (!is_vector_aligned(bottom) || !is_vector_aligned(top.data) || !is_vector_aligned(top.residual)) {
    return tiles_forward(chain, tables, bottom, parameters, top, workspace, stream);
  }
  with_block_shape<T>(chain, [&](auto shape) {
    constexpr int K = shape.kBranch;
    launch_early(top.residual || chain.relu ? forward_igcv2<T, K, true> : forward_igcv2<T, K, false>,
                 dim3(igcv2_tiles<T>(chain)), igcv2_shared_bytes<T>(chain), stream,
                 block_arguments(chain, tables, parameters), bottom, top.residual, chain.relu, top.data);
  });
}

}  // namespace

template <typename T>
int igcv2_tiles(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages[0];
  return chain.batch * (s.out_height * s.out_width / tile_pixels<T>(chain));
}

template <typename T>
size_t igcv2_shared_bytes(const GroupConvolutionChain& chain) {
  return with_block_shape<T>(chain, [&](auto shape) { return shape.shared_bytes(chain.stages[0].in_channels); });
}

template <typename T>
BlockArguments<T> block_arguments(const GroupConvolutionChain& chain, const int* tables,
                                  const ChainParameters<T>& parameters) {
  const GroupConvolutionStage& s = chain.stages[0];
  const int rows = tile_pixels<T>(chain) / s.out_width;
  return {s.in_channels,
          s.out_height,
          s.out_width,
          rows,
          s.out_height / rows,
          Divisor(s.out_width / Vector<T>::size),
          depthwise_inputs(chain, tables),
          stage_tables(chain, tables, 0).destination,
          stage_tables(chain, tables, 1).destination,
          stage_tables(chain, tables, 2).destination,
          parameters.weight[0],
          parameters.weight[1],
          parameters.weight[2]};
}

template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_igcv2() {
  return {"igcv2", supports<T>, tiles_workspace_bytes<T>, igcv2_forward<T>, igcv2_backward<T>};
}

template int igcv2_tiles<float>(const GroupConvolutionChain&);
template int igcv2_tiles<double>(const GroupConvolutionChain&);
template size_t igcv2_shared_bytes<float>(const GroupConvolutionChain&);
template size_t igcv2_shared_bytes<double>(const GroupConvolutionChain&);
template BlockArguments<float> block_arguments<float>(const GroupConvolutionChain&, const int*,
                                                      const ChainParameters<float>&);
template BlockArguments<double> block_arguments<double>(const GroupConvolutionChain&, const int*,
                                                        const ChainParameters<double>&);
template CudaGroupConvolutionKernel<float> group_convolution_igcv2<float>();
template CudaGroupConvolutionKernel<double> group_convolution_igcv2<double>();

}  // namespace caffe_layers
