#include "caffe_layers/kernels/tile_pieces.cuh"

namespace caffe_layers {

namespace {

/// One tile through all stages; block = tile.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    forward_tile(TileArguments<T> a, const T* __restrict__ bottom, const T* __restrict__ residual, bool relu,
                 T* __restrict__ top) {
  T* shared = shared_memory<T>();
  const TilePosition position = tile_position(a.plan, blockIdx.x);
  const int top_channels = a.pointwise > 0 ? a.stage[a.pointwise - 1].out_channels : a.first.out_channels;
  const int plane = a.first.out_height * a.first.out_width;
  PixelRows<T> top_rows = global_rows(top, top_channels, plane, a.plan, position);
  top_rows.relu = relu;
  if (residual) top_rows.residual = global_rows(residual, top_channels, plane, a.plan, position).data;
  if (a.pointwise == 0) {
    first_stage(a, bottom, position, top_rows);
    return;
  }
  first_stage(a, bottom, position, shared_rows(shared + a.plan.offset[0], a.plan.pixels));
  for (int s = 0; s < a.pointwise; ++s) {
    __syncthreads();
    const T* in = shared + a.plan.offset[s];
    if (s + 1 < a.pointwise) {
      pointwise_forward(a.stage[s], in, a.plan.pixels, shared_rows(shared + a.plan.offset[s + 1], a.plan.pixels));
    } else {
      pointwise_forward(a.stage[s], in, a.plan.pixels, top_rows);
    }
  }
}

}  // namespace

template <typename T>
void tiles_forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                   const ChainParameters<T>& parameters, ChainTop<T> top, void*, cudaStream_t stream) {
  TilePlan plan;
  plan_tiles<T>(chain, false, &plan);
  const TileArguments<T> arguments = tile_arguments(chain, plan, tables, bottom, parameters);
  launch(forward_tile<T>, dim3(plan.tiles), plan.shared_bytes, stream, arguments, bottom, top.residual, chain.relu,
         top.data);
}

template void tiles_forward<float>(const GroupConvolutionChain&, const int*, const float*,
                                   const ChainParameters<float>&, ChainTop<float>, void*, cudaStream_t);
template void tiles_forward<double>(const GroupConvolutionChain&, const int*, const double*,
                                    const ChainParameters<double>&, ChainTop<double>, void*, cudaStream_t);

}  // namespace caffe_layers
