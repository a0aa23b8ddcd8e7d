#include "caffe_layers/kernels/tile_pieces.cuh"

namespace caffe_layers {

namespace {

/// One tile through all stages; block = tile.
template <typename T, typename Rows>
__device__ void forward_stages(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                               const Rows& top) {
  if (a.pointwise == 0) return first_stage(a, bottom, position, top);
  SharedRows<T> in = {shared_memory<T>(), a.plan.pixels}, out = {in.data + a.plan.odd_offset, a.plan.pixels};
  first_stage(a, bottom, position, in);
  for (int s = 0; s + 1 < a.pointwise; ++s) {
    __syncthreads();
    pointwise_forward(a.stage[s], a.plan, in, out);
    const SharedRows<T> free = in;
    in = out;
    out = free;
  }
  __syncthreads();
  pointwise_forward(a.stage[a.pointwise - 1], a.plan, in, top);
}

/// FINISHED: with a residual (null: none) or a ReLU.
template <typename T, bool FINISHED>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    forward_tile(const __grid_constant__ TileArguments<T> a, const T* __restrict__ bottom,
                 const T* __restrict__ residual, bool relu, T* __restrict__ top) {
  const TilePosition position = tile_position(a.plan, blockIdx.x);
  const int top_channels = a.pointwise > 0 ? a.stage[a.pointwise - 1].out_channels : a.first.out_channels;
  const int plane = a.first.out_height * a.first.out_width;
  const PlaneRows<T> rows = plane_rows(top, top_channels, plane, a.plan, position);
  if constexpr (FINISHED) {
    const T* added = residual ? residual + (rows.data - top) : nullptr;
    forward_stages(a, bottom, position, FinishedRows<T>(rows, added, relu, nullptr));
  } else {
    forward_stages(a, bottom, position, rows);
  }
}

}  // namespace

template <typename T>
void tiles_forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, ChainTop<T> top, void*, cudaStream_t stream) {
  TilePlan plan;
  plan_tiles<T>(chain, &plan);
  const TileArguments<T> arguments = tile_arguments(chain, plan, tables, bottom, parameters);
  const auto kernel = top.residual || chain.relu ? forward_tile<T, true> : forward_tile<T, false>;
  launch(kernel, dim3(plan.tiles), plan.shared_bytes, stream, arguments, bottom, top.residual, chain.relu, top.data);
}

template void tiles_forward<float>(const GroupConvolutionChain&, const int*, const float*,
                                   const ChainParameters<float>&, ChainTop<float>, void*, cudaStream_t);
template void tiles_forward<double>(const GroupConvolutionChain&, const int*, const double*,
                                    const ChainParameters<double>&, ChainTop<double>, void*, cudaStream_t);

}  // namespace caffe_layers
