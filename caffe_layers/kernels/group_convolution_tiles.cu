#include <algorithm>
#include <limits>

#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/spatial_gradients.cuh"

namespace caffe_layers {

namespace {

/// Pixels of a tile where there is room: enough for a warp to read 16 bytes per lane in one row.
constexpr int kTilePixels = 128;
/// Tiles are not made smaller than this just to have more of them.
constexpr int kSmallTilePixels = 32;

bool is_pointwise(const GroupConvolutionStage& s) { return s.kernel == 1 && s.stride == 1 && s.pad == 0; }

/// What lies between stages is not limited by a blob.
bool is_indexed_by_int(const GroupConvolutionStage& s) {
  return static_cast<size_t>(s.out_channels) * s.out_height * s.out_width <= std::numeric_limits<int>::max();
}

/// Fills in the offset of the second array in shared memory for tiles of `pixels`; returns the size of both in values.
int lay_out_shared(const GroupConvolutionChain& chain, int pixels, TilePlan* plan) {
  const size_t first = first_pointwise(*plan);
  int channels[2] = {0, 0};  // a stage needs its own input and the next one's
  for (int s = 0; s < pointwise_count(chain, *plan); ++s) {
    channels[s % 2] = std::max(channels[s % 2], chain.stages[first + s].in_channels);
  }
  plan->odd_offset = channels[0] * pixels;
  return (channels[0] + channels[1]) * pixels;
}

/// What depends on the number of pixels.
template <typename T>
void set_divisors(const GroupConvolutionStage& first, TilePlan* plan) {
  const int rows = plan->pixels / first.out_width;
  plan->rows_per_thread = first.stride == 2 ? 1 : rows % 4 == 0 ? 4 : rows % 2 == 0 ? 2 : 1;
  plan->vectors_per_row = Divisor(plan->pixels / Vector<T>::size);
  if (first.out_width % Vector<T>::size == 0) plan->columns = Divisor(first.out_width / Vector<T>::size);
  if (plan->rows) plan->row_chunks = Divisor(rows / plan->rows_per_thread);
}

}  // namespace

template <typename T>
bool plan_tiles(const GroupConvolutionChain& chain, TilePlan* plan) {
  const GroupConvolutionStage& first = chain.stages.front();
  if (!std::all_of(chain.stages.begin() + 1, chain.stages.end(), is_pointwise)) return false;
  if (!std::all_of(chain.stages.begin(), chain.stages.end(), is_indexed_by_int)) return false;
  *plan = {};
  plan->gather = first.kernel == 1 && first.pad == 0;
  plan->rows = reads_rows<T>(stage_shape(chain, 0)) && first.out_width <= kTilePixels;
  if (pointwise_count(chain, *plan) > kMaxPointwise) return false;

  const size_t limit = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  const int enough_tiles = 2 * device_attribute(cudaDevAttrMultiProcessorCount);
  const int image = first.out_height * first.out_width;
  const int unit = plan->rows ? first.out_width : Vector<T>::size;
  int units = std::min(std::max(kTilePixels / unit, 1), ceil_div(image, unit));
  for (;; units = ceil_div(units, 2)) {
    plan->pixels = units * unit;
    plan->tiles_per_image = ceil_div(image, plan->pixels);
    plan->tiles = chain.batch * plan->tiles_per_image;
    plan->shared_bytes = lay_out_shared(chain, plan->pixels, plan) * sizeof(T);
    const bool two_per_multiprocessor = 2 * plan->shared_bytes <= limit;
    const bool many = plan->tiles >= enough_tiles || plan->pixels <= kSmallTilePixels;
    if (units == 1 || (two_per_multiprocessor && many)) break;
  }
  set_divisors<T>(first, plan);
  return plan->shared_bytes <= limit;
}

template <typename T>
TileArguments<T> tile_arguments(const GroupConvolutionChain& chain, const TilePlan& plan, const int* tables,
                                const T* bottom, const ChainParameters<T>& parameters) {
  TileArguments<T> a = {};
  a.plan = plan;
  a.plan.rows = plan.rows && is_vector_aligned(bottom);
  a.first = stage_shape(chain, 0);
  a.first_group_out = Divisor(a.first.group_out);
  a.first_tables = stage_tables(chain, tables, 0);
  a.first_weight = parameters.weight[0];
  a.first_bias = parameters.bias[0];
  a.pointwise = pointwise_count(chain, plan);
  for (int p = 0; p < a.pointwise; ++p) {
    const size_t s = first_pointwise(plan) + p;
    const StageShape shape = stage_shape(chain, s);
    const bool vector_weights = shape.group_in % Vector<T>::size == 0 && is_vector_aligned(parameters.weight[s]);
    a.stage[p] = {shape.in_channels,
                  shape.out_channels,
                  shape.group_in,
                  shape.group_out,
                  shape.out_channels / shape.group_out,
                  vector_weights,
                  Divisor(ceil_div(shape.group_in, kChannelsPerThread)),
                  Divisor(ceil_div(shape.group_out, kChannelsPerThread)),
                  parameters.weight[s],
                  parameters.bias[s],
                  stage_tables(chain, tables, s).destination};
  }
  return a;
}

namespace {

template <typename T>
bool supports(const GroupConvolutionChain& chain) {
  TilePlan plan;
  return plan_tiles<T>(chain, &plan);
}

}  // namespace

template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_tiles() {
  return {"tiles", supports<T>, tiles_workspace_bytes<T>, tiles_forward<T>, tiles_backward<T>};
}

template bool plan_tiles<float>(const GroupConvolutionChain&, TilePlan*);
template bool plan_tiles<double>(const GroupConvolutionChain&, TilePlan*);
template TileArguments<float> tile_arguments<float>(const GroupConvolutionChain&, const TilePlan&, const int*,
                                                    const float*, const ChainParameters<float>&);
template TileArguments<double> tile_arguments<double>(const GroupConvolutionChain&, const TilePlan&, const int*,
                                                      const double*, const ChainParameters<double>&);
template CudaGroupConvolutionKernel<float> group_convolution_tiles<float>();
template CudaGroupConvolutionKernel<double> group_convolution_tiles<double>();

}  // namespace caffe_layers
