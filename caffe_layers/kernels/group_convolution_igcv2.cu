#include "caffe_layers/kernels/group_convolution_igcv2.cuh"

#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/igcv2_pieces.cuh"
#include "caffe_layers/kernels/tile_rows.cuh"

namespace caffe_layers {

namespace {

/// The second 1x1 stage: a warp takes a branch.
template <typename T, int K, int ROWS, typename Rows>
__device__ __forceinline__ void last_stage(const SharedBlock<T, K, ROWS>& shared, int branches, const Rows& top) {
  constexpr int V = Vector<T>::size, kPixels = BlockShape<T, K, ROWS>::kPixels;
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
template <typename T, int K, int ROWS, bool FINISHED>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    forward_igcv2(const __grid_constant__ BlockArguments<T> a, const T* __restrict__ bottom,
                  const T* __restrict__ residual, bool relu, T* __restrict__ top) {
  const SharedBlock<T, K, ROWS> shared(a.channels);
  const BlockTile<T, ROWS> tile(a);
  wait_for_earlier_kernels();
  first_stages<T, K, ROWS>(a, bottom, tile, shared);
  __syncthreads();
  let_next_kernel_start();
  const size_t offset = tile.image + tile.first_pixel;
  const PlaneRows<T> rows = {top + offset, a.height * a.width, BlockShape<T, K, ROWS>::kPixels, true};
  if constexpr (FINISHED) {
    last_stage<T, K, ROWS>(shared, a.channels / K,
                           FinishedRows<T>(rows, residual ? residual + offset : nullptr, relu, nullptr));
  } else {
    last_stage<T, K, ROWS>(shared, a.channels / K, rows);
  }
}

bool is_square(const GroupConvolutionStage& s, int group_channels) {
  return s.in_channels == s.out_channels && s.in_channels / s.group == group_channels && !s.bias && s.stride == 1;
}

/// Pixels of a tile.
template <typename T>
int tile_pixels(const GroupConvolutionChain& chain) {
  return branch_channels(chain) == 8 ? BlockShape<T, 8, 2>::kPixels : BlockShape<T, 16, 1>::kPixels;
}

template <typename T>
bool supports(const GroupConvolutionChain& chain) {
  TilePlan tiles;
  if (chain.stages.size() != 3 || !plan_tiles<T>(chain, &tiles)) return false;
  const GroupConvolutionStage& s = chain.stages[0];
  const int branch = branch_channels(chain);
  if (!tiles.rows || !is_square(s, 1) || (branch != 8 && branch != 16)) return false;
  if (!is_square(chain.stages[1], branch) || !is_square(chain.stages[2], branch)) return false;
  const int pixels = tile_pixels<T>(chain);
  if (kLanes * Vector<T>::size % s.out_width != 0 || s.out_height % (pixels / s.out_width) != 0) return false;
  return 2 * igcv2_shared_bytes<T>(chain) <=
         static_cast<size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

template <typename T>
void igcv2_forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, ChainTop<T> top, void* workspace, cudaStream_t stream) {
  if (!is_vector_aligned(bottom) || !is_vector_aligned(top.data) || !is_vector_aligned(top.residual)) {
    return tiles_forward(chain, tables, bottom, parameters, top, workspace, stream);
  }
  const auto start = [&](auto* kernel) {
    launch_early(kernel, dim3(igcv2_tiles<T>(chain)), igcv2_shared_bytes<T>(chain), stream,
                 block_arguments(chain, tables, parameters), bottom, top.residual, chain.relu, top.data);
  };
  const bool finished = top.residual || chain.relu;
  if (branch_channels(chain) == 8) {
    start(finished ? forward_igcv2<T, 8, 2, true> : forward_igcv2<T, 8, 2, false>);
  } else {
    start(finished ? forward_igcv2<T, 16, 1, true> : forward_igcv2<T, 16, 1, false>);
  }
}

}  // namespace

template <typename T>
int igcv2_tiles(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages[0];
  return chain.batch * (s.out_height * s.out_width / tile_pixels<T>(chain));
}

template <typename T>
size_t igcv2_shared_bytes(const GroupConvolutionChain& chain) {
  const int channels = chain.stages[0].in_channels;
  return branch_channels(chain) == 8 ? BlockShape<T, 8, 2>::shared_bytes(channels)
                                     : BlockShape<T, 16, 1>::shared_bytes(channels);
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
  return {"igcv2", supports<T>, igcv2_workspace_bytes<T>, igcv2_forward<T>, igcv2_backward<T>};
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
