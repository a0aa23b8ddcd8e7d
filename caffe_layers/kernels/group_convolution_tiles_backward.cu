#include "caffe_layers/kernels/parameter_gradients.cuh"
#include "caffe_layers/kernels/spatial_gradients.cuh"
#include "caffe_layers/kernels/tile_pieces.cuh"

namespace caffe_layers {

namespace {

/// Where the backward pass leaves what the parameters' gradients are made of; null: not wanted. 1x1 stage p's input is
/// laid out in the order of its channels, as its gradient is.
template <typename T>
struct Between {
  T* input[kMaxPointwise];
  T* diff[kMaxPointwise];
  /// How many 1x1 stages' inputs are computed again.
  int inputs;
};

/// The gradient with respect to bottom of a 1x1 first stage with a stride, the pixels that it skips included.
template <typename T>
__device__ void write_strided_diff(const TileArguments<T>& a, const TilePosition& position, const T* diff,
                                   const BottomFinish<T>& finish, T* bottom_diff) {
  const StageShape& s = a.first;
  const int columns = a.plan.pixels * s.stride;
  for (int item = threadIdx.x; item < s.in_channels * s.stride * columns; item += kThreads) {
    const int column = item % columns, dy = item / columns % s.stride, c = item / columns / s.stride;
    const int p = column / s.stride, dx = column % s.stride, pixel = position.first_pixel + p;
    const int y = pixel / s.out_width * s.stride + dy, x = pixel % s.out_width * s.stride + dx;
    if (pixel >= s.out_height * s.out_width || y >= s.in_height || x >= s.in_width) continue;
    const size_t map = static_cast<size_t>(position.image) * s.in_channels + a.first_tables.source[c];
    const size_t at = (map * s.in_height + y) * s.in_width + x;
    bottom_diff[at] = finish(dx == 0 && dy == 0 ? diff[c * a.plan.pixels + p] : T(0), at);
  }
}

/// The same for stride 2, 16 bytes at a time, where rows of bottom are made of as many whole vectors as two of `diff`.
template <typename T>
__device__ void write_rows_of_stride_2(const TileArguments<T>& a, const TilePosition& position, const T* diff,
                                       const BottomFinish<T>& finish, T* bottom_diff) {
  constexpr int V = Vector<T>::size;
  const StageShape& s = a.first;
  for (unsigned item = threadIdx.x; item < s.in_channels * a.plan.vectors_per_row.divisor; item += kThreads) {
    unsigned p = item;
    const unsigned c = a.plan.vectors_per_row.divide(&p);
    if (position.first_pixel + p * V >= s.out_height * s.out_width) continue;
    unsigned column = position.first_pixel / V + p;
    const int y = 2 * a.plan.columns.divide(&column);
    const Vector<T> d = load_vector(diff + c * a.plan.pixels + p * V);
    const size_t map = static_cast<size_t>(position.image) * s.in_channels + a.first_tables.source[c];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = part / 2, half = part % 2;
      if (y + row >= s.in_height) break;
      Vector<T> value = {};
#pragma unroll
      for (int e = 0; e < V; e += 2) value.at[e] = row == 0 ? d.at[(half * V + e) / 2] : T(0);
      const size_t at = (map * s.in_height + y + row) * s.in_width + (2 * column + half) * V;
      store(bottom_diff + at, finish(value, at));
    }
  }
}

template <typename T>
__device__ __forceinline__ bool writes_rows_of_stride_2(const StageShape& s, const BottomFinish<T>& finish,
                                                        const T* bottom_diff) {
  return s.stride == 2 && s.out_width % Vector<T>::size == 0 && s.in_width == 2 * s.out_width &&
         is_vector_aligned(bottom_diff) && is_vector_aligned(finish.skip) && is_vector_aligned(finish.relu);
}

/// An array of shared memory: the input of 1x1 stage p, or its gradient.
template <typename T>
__device__ __forceinline__ SharedRows<T> tile_array(const TilePlan& plan, int p) {
  return {shared_memory<T>() + (p % 2 == 0 ? 0 : plan.odd_offset), plan.pixels};
}

/// The inputs of the 1x1 stages, each also to where it is wanted.
template <typename T>
__device__ void recompute(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                          const Between<T>& between) {
  const int plane = a.first.out_height * a.first.out_width;
  for (int p = 0; p < between.inputs; ++p) {
    const SavedRows<T> out = {p + 1 < between.inputs, tile_array<T>(a.plan, p),
                              plane_rows(between.input[p], a.stage[p].in_channels, plane, a.plan, position)};
    if (p == 0) {
      first_stage(a, bottom, position, out);
    } else {
      pointwise_forward(a.stage[p - 1], a.plan, tile_array<T>(a.plan, p - 1), out);
    }
    __syncthreads();
  }
}

/// The gradient with respect to bottom of a 1x1 first stage, finished; `diff` is that of its output.
template <typename T>
__device__ void bottom_gradient(const TileArguments<T>& a, const TilePosition& position, const EitherRows<T>& diff,
                                const BottomFinish<T>& finish, T* bottom_diff) {
  const PointwiseStage<T>& s = a.stage[0];
  if (a.first.stride > 1) {
    const SharedRows<T> array = tile_array<T>(a.plan, 0);
    pointwise_backward_data(s, a.plan, diff, nullptr, array);
    __syncthreads();
    if (writes_rows_of_stride_2(a.first, finish, bottom_diff)) {
      write_rows_of_stride_2(a, position, array.data, finish, bottom_diff);
    } else {
      write_strided_diff(a, position, array.data, finish, bottom_diff);
    }
    return;
  }
  const int plane = a.first.out_height * a.first.out_width;
  const PlaneRows<T> rows = plane_rows(bottom_diff, s.in_channels, plane, a.plan, position);
  const size_t offset = rows.data - bottom_diff;
  const T* skip = finish.skip ? finish.skip + offset : nullptr;
  const T* relu = finish.relu ? finish.relu + offset : nullptr;
  pointwise_backward_data(s, a.plan, diff, a.first_tables.source, FinishedRows<T>(rows, skip, false, relu));
}

/// Through the 1x1 stages from the last to the first; block = tile. between.diff[0]: the gradient with respect to the
/// first stage's output, its channels as first_tables.destination says; or, of a plan that gathers, with respect to
/// bottom, finished.
template <typename T, bool GATHER>
__global__ void __launch_bounds__(kThreads, kTileBlocks)
    backward_tile(const __grid_constant__ TileArguments<T> a, const __grid_constant__ Between<T> between,
                  const T* __restrict__ bottom, const T* __restrict__ top_diff, BottomFinish<T> finish) {
  const TilePosition position = tile_position(a.plan, blockIdx.x);
  const int plane = a.first.out_height * a.first.out_width, last = a.pointwise - 1;
  recompute(a, bottom, position, between);
  EitherRows<T> diff = {tile_array<T>(a.plan, last + 1),
                        plane_rows(top_diff, a.stage[last].out_channels, plane, a.plan, position)};
  for (int p = last; p >= 0; --p) {
    if (!between.diff[p]) return;  // nor are those of earlier stages wanted
    if (GATHER && p == 0) return bottom_gradient(a, position, diff, finish, between.diff[0]);
    const SavedRows<T> out = {p > 0, tile_array<T>(a.plan, p),
                              plane_rows(between.diff[p], a.stage[p].in_channels, plane, a.plan, position)};
    pointwise_backward_data(a.stage[p], a.plan, diff, nullptr, out);
    diff = {out.shared, {}};
    __syncthreads();
  }
}

size_t input_count(const GroupConvolutionChain& chain, size_t stage) {
  const GroupConvolutionStage& s = chain.stages[stage];
  const size_t count = static_cast<size_t>(chain.batch) * s.in_channels * s.out_height * s.out_width;
  return ceil_div<size_t>(count, 4) * 4;  // what follows is aligned to 16 bytes
}

/// 1x1 stage 0 of a plan that gathers without a stride finds its input in bottom.
bool input_is_bottom(const GroupConvolutionChain& chain, const TilePlan& plan, int p) {
  return p == 0 && plan.gather && chain.stages[0].stride == 1;
}

/// Lays out what the gradients asked for need in `memory` (null: only for the sake of its size); returns how many
/// values.
template <typename T>
size_t lay_out_between(const GroupConvolutionChain& chain, const TilePlan& plan, const ChainGradients<T>& gradients,
                       T* memory, Between<T>* between) {
  const size_t first = first_pointwise(plan);
  size_t used = 0;
  const auto take = [&](size_t stage) {
    T* const taken = memory ? memory + used : nullptr;
    used += input_count(chain, stage);
    return taken;
  };
  bool wanted = gradients.bottom || (first == 1 && (gradients.weight[0] || gradients.bias[0]));
  *between = {};
  for (int p = 0; p < pointwise_count(chain, plan); ++p) {
    if (wanted) between->diff[p] = p == 0 && plan.gather ? gradients.bottom : take(first + p);
    wanted = wanted || gradients.weight[first + p] || gradients.bias[first + p];
    if (!gradients.weight[first + p] || input_is_bottom(chain, plan, p)) continue;
    between->input[p] = take(first + p);
    between->inputs = p + 1;
  }
  return used;
}

template <typename T>
void parameter_gradients(const GroupConvolutionChain& chain, const TilePlan& plan, const int* tables, const T* bottom,
                         const T* top_diff, const ChainGradients<T>& gradients, const Between<T>& between, T* partials,
                         cudaStream_t stream) {
  ParameterGradients<T> sums(chain, gradients, partials, stream);
  for (size_t s = chain.stages.size(); s-- > 0;) {
    const int p = static_cast<int>(s) - static_cast<int>(first_pointwise(plan));
    const T* out_diff = s + 1 == chain.stages.size() ? top_diff : between.diff[p + 1];
    const StageTables channels = stage_tables(chain, tables, s);
    if (p >= 0 && !input_is_bottom(chain, plan, p)) {
      sums.pointwise(s, {nullptr, channels.destination}, between.input[p], out_diff);
    } else if (p >= 0) {
      sums.pointwise(s, channels, bottom, out_diff);
    } else {
      sums.spatial(s, channels, bottom, out_diff);
    }
    sums.bias(s, channels, out_diff);
  }
  sums.add_up();
}

}  // namespace

template <typename T>
size_t tiles_workspace_bytes(const GroupConvolutionChain& chain, bool backward) {
  if (!backward) return 0;
  TilePlan plan;
  plan_tiles<T>(chain, &plan);
  T any;
  ChainGradients<T> all;
  all.bottom = &any;
  all.weight.assign(chain.stages.size(), &any);
  all.bias = all.weight;
  Between<T> between;
  return (lay_out_between<T>(chain, plan, all, nullptr, &between) + partial_sum_count<T>(chain)) * sizeof(T);
}

template <typename T>
void tiles_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream) {
  TilePlan plan;
  plan_tiles<T>(chain, &plan);
  const TileArguments<T> arguments = tile_arguments(chain, plan, tables, bottom, parameters);
  Between<T> between;
  T* memory = static_cast<T*>(workspace);
  T* partials = memory + lay_out_between(chain, plan, gradients, memory, &between);
  const BottomFinish<T> finish = bottom_finish(gradients, bottom);
  const int last = arguments.pointwise - 1;
  if (last >= 0 && (between.inputs > 0 || between.diff[last])) {
    const auto kernel = plan.gather ? backward_tile<T, true> : backward_tile<T, false>;
    launch(kernel, dim3(plan.tiles), plan.shared_bytes, stream, arguments, between, bottom, top_diff, finish);
  }
  parameter_gradients(chain, plan, tables, bottom, top_diff, gradients, between, partials, stream);
  if (gradients.bottom && !plan.gather) {
    spatial_backward_data(arguments.first, arguments.first_tables, arguments.first_weight,
                          last >= 0 ? between.diff[0] : top_diff, finish, gradients.bottom, stream);
  }
}

template size_t tiles_workspace_bytes<float>(const GroupConvolutionChain&, bool);
template size_t tiles_workspace_bytes<double>(const GroupConvolutionChain&, bool);
template void tiles_backward<float>(const GroupConvolutionChain&, const int*, const float*,
                                    const ChainParameters<float>&, const float*, const ChainGradients<float>&, void*,
                                    cudaStream_t);
template void tiles_backward<double>(const GroupConvolutionChain&, const int*, const double*,
                                     const ChainParameters<double>&, const double*, const ChainGradients<double>&,
                                     void*, cudaStream_t);

}  // namespace caffe_layers
