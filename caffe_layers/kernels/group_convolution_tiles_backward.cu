#include <algorithm>

#include "caffe_layers/kernels/partial_sums.cuh"
#include "caffe_layers/kernels/tile_gradients.cuh"

namespace caffe_layers {

namespace {

/// Partial sums of all blocks together take no more than this, unless that would leave less than one block.
constexpr size_t kMaxPartialBytes = size_t(64) << 20;

size_t weight_count(const GroupConvolutionStage& s) {
  return static_cast<size_t>(s.out_channels) * (s.in_channels / s.group) * s.kernel * s.kernel;
}

size_t parameter_count(const GroupConvolutionChain& chain) {
  size_t count = 0;
  for (const GroupConvolutionStage& s : chain.stages) count += weight_count(s) + (s.bias ? s.out_channels : 0);
  return count;
}

/// Where in a block's partial sums each gradient lies; -1 where it is not asked for. The arrays' unused entries are
/// zero: kept launches are compared by their bytes.
struct PartialLayout {
  int first_weight = -1, first_bias = -1;
  int weight[kMaxPointwise] = {}, bias[kMaxPointwise] = {};
  int entries = 0;
  /// Some 1x1 stage's weights are asked for, so what lies between is needed.
  bool recompute = false;
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

/// The gradient before the 1x1 stages, from shared memory to where backward_tiles wants it.
template <typename T>
__device__ void write_first_diff(const TileArguments<T>& a, const TilePosition& position, const T* diff,
                                 const BottomFinish<T>& finish, T* first_diff) {
  constexpr int V = Vector<T>::size;
  const StageShape& s = a.first;
  if (a.plan.gather && s.stride > 1) return write_strided_diff(a, position, diff, finish, first_diff);
  const int vectors = a.plan.pixels / V, channels = a.plan.gather ? s.in_channels : s.out_channels;
  PixelRows<T> rows = global_rows(first_diff, channels, s.out_height * s.out_width, a.plan, position);
  const size_t offset = rows.data - first_diff;
  if (finish.skip) rows.residual = finish.skip + offset;
  if (finish.relu) rows.positive = finish.relu + offset;
  for (int item = threadIdx.x; item < channels * vectors; item += kThreads) {
    const int p = item % vectors * V, c = item / vectors;
    const Vector<T> value = load_vector(diff + c * a.plan.pixels + p);
    store_pixels(rows, a.plan.gather ? a.first_tables.source[c] : c, p, value);
  }
}

/// Backward through the stages, tile after tile; blocks take tiles blockIdx.x, + gridDim.x, ...
/// first_diff (may be null): the gradient with respect to the first stage's output, its channels as
/// first_tables.destination says; or, of a plan that gathers, with respect to bottom, finished.
template <typename T>
__global__ void __launch_bounds__(kThreads, 2)
    backward_tiles(TileArguments<T> a, PartialLayout layout, const T* __restrict__ bottom,
                   const T* __restrict__ top_diff, T* __restrict__ partials, BottomFinish<T> finish,
                   T* __restrict__ first_diff) {
  constexpr int V = Vector<T>::size;
  T* shared = shared_memory<T>();
  const int pixels = a.plan.pixels, plane = a.first.out_height * a.first.out_width;
  const int top_channels = a.pointwise > 0 ? a.stage[a.pointwise - 1].out_channels : a.first.out_channels;
  const bool below = first_diff || layout.first_weight >= 0 || layout.first_bias >= 0;
  T* sums = partials + static_cast<size_t>(blockIdx.x) * layout.entries;
  for (int tile = blockIdx.x; tile < a.plan.tiles; tile += gridDim.x) {
    const bool first_tile = tile == static_cast<int>(blockIdx.x);
    const TilePosition position = tile_position(a.plan, tile);
    __syncthreads();  // the tile before is done with
    if (layout.recompute) {
      first_stage(a, bottom, position, shared_rows(shared + a.plan.offset[0], pixels));
      for (int s = 0; s + 1 < a.pointwise; ++s) {
        __syncthreads();
        pointwise_forward(a.stage[s], shared + a.plan.offset[s], pixels,
                          shared_rows(shared + a.plan.offset[s + 1], pixels));
      }
    }
    const PixelRows<const T> top_rows = global_rows(top_diff, top_channels, plane, a.plan, position);
    const PixelRows<T> top_tile = shared_rows(shared + a.plan.offset[a.pointwise], pixels);
    for (int item = threadIdx.x; item < top_channels * (pixels / V); item += kThreads) {
      const int channel = item / (pixels / V), p = item % (pixels / V) * V;
      store_pixels(top_tile, channel, p, load_pixels(top_rows, channel, p));
    }
    __syncthreads();
    for (int s = a.pointwise - 1; s >= 0; --s) {
      T* in = shared + a.plan.offset[s];
      const T* diff = shared + a.plan.offset[s + 1];
      if (layout.weight[s] >= 0) {
        pointwise_weight_sums(a.stage[s], in, diff, pixels, PartialSums<T>{sums + layout.weight[s], first_tile});
      }
      if (layout.bias[s] >= 0) {
        bias_sums(a.stage[s].out_channels, a.stage[s].destination, diff, pixels,
                  PartialSums<T>{sums + layout.bias[s], first_tile});
      }
      if (s == 0 && !below) break;
      __syncthreads();  // the stage's input gives way to its gradient
      pointwise_backward_data(a.stage[s], diff, pixels, in);
      __syncthreads();
    }
    const T* diff = shared + a.plan.offset[0];
    if (layout.first_weight >= 0) {
      const PartialSums<T> partial{sums + layout.first_weight, first_tile};
      if (!a.plan.rows) {
        first_weight_sums_any(a, bottom, position, diff, partial);
      } else if (a.first.stride == 2) {
        first_weight_sums_rows<2>(a, bottom, position, diff, partial);
      } else {
        first_weight_sums_rows<1>(a, bottom, position, diff, partial);
      }
    }
    if (layout.first_bias >= 0) {
      bias_sums(a.first.out_channels, a.first_tables.destination, diff, pixels,
                PartialSums<T>{sums + layout.first_bias, first_tile});
    }
    if (first_diff) write_first_diff(a, position, diff, finish, first_diff);
  }
}

/// Gradient with respect to the data of a 3x3, pad 1, stride 1 stage: the same convolution turned by 180 degrees, from
/// outputs to inputs. A thread computes kRows x V values of one map.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_data_rows(StageShape s, StageTables tables, const T* __restrict__ weight, const T* __restrict__ out_diff,
                       BottomFinish<T> finish, T* __restrict__ in_diff) {
  constexpr int V = Vector<T>::size, kRows = 4;
  const int columns = s.in_width / V, chunks = ceil_div(s.in_height, kRows), plane = s.in_height * s.in_width;
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  const int x = item % columns * V, y = item / columns % chunks * kRows;
  const int i = item / columns / chunks % s.in_channels, n = item / columns / chunks / s.in_channels;
  if (n >= s.batch) return;
  T sums[kRows][V] = {};
  const int first_out = i / s.group_in * s.group_out;
  for (int k = 0; k < s.group_out; ++k) {
    const size_t map = static_cast<size_t>(n) * s.out_channels + tables.destination[first_out + k];
    const size_t w = static_cast<size_t>(first_out + k) * s.group_in + i % s.group_in;
    convolve_rows<1, kRows>(out_diff + map * plane, s.in_height, s.in_width, y, x, weight + w * 9, true, sums);
  }
  const size_t map = (static_cast<size_t>(n) * s.in_channels + tables.source[i]) * plane;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (y + r >= s.in_height) break;
    Vector<T> value;
#pragma unroll
    for (int e = 0; e < V; ++e) value.at[e] = sums[r][e];
    const size_t at = map + (y + r) * s.in_width + x;
    store_vector(in_diff + at, finish(value, at));
  }
}

template <typename T>
void first_backward_data(const TileArguments<T>& a, const T* out_diff, const BottomFinish<T>& finish, T* bottom_diff,
                         cudaStream_t stream) {
  const StageShape& s = a.first;
  const bool aligned =  // bottom is, where a.plan.rows
      is_vector_aligned(out_diff) && is_vector_aligned(bottom_diff) && is_vector_aligned(finish.skip);
  if (!a.plan.rows || s.stride != 1 || !aligned) {
    stage_backward_data(s, a.first_tables, a.first_weight, out_diff, finish, bottom_diff, stream);
    return;
  }
  const size_t items =
      static_cast<size_t>(s.batch) * s.in_channels * ceil_div(s.in_height, 4) * (s.in_width / Vector<T>::size);
  launch(backward_data_rows<T>, dim3(ceil_div<size_t>(items, kThreads)), 0, stream, s, a.first_tables, a.first_weight,
         out_diff, finish, bottom_diff);
}

/// The gradients asked for, as segments of a block's partial sums.
template <typename T>
PartialLayout lay_out_partials(const GroupConvolutionChain& chain, const TilePlan& plan,
                               const ChainGradients<T>& gradients, Segments<T>* segments) {
  PartialLayout layout;
  const auto add = [segments](T* target, size_t size) {
    if (!target) return -1;
    segments->add(target, static_cast<int>(size));
    return segments->first[segments->count - 1];
  };
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    const int weight = add(gradients.weight[s], weight_count(chain.stages[s]));
    const int bias = add(gradients.bias[s], chain.stages[s].out_channels);
    if (s < first_pointwise(plan)) {
      layout.first_weight = weight;
      layout.first_bias = bias;
    } else {
      layout.weight[s - first_pointwise(plan)] = weight;
      layout.bias[s - first_pointwise(plan)] = bias;
      layout.recompute |= weight >= 0;
    }
  }
  layout.entries = segments->size();
  return layout;
}

/// Blocks of backward_tiles: what the device runs at a time.
template <typename T>
int block_count(const GroupConvolutionChain& chain, const TilePlan& plan) {
  constexpr int kMostPerMultiprocessor = 2;  // by registers, as its launch bounds say
  const size_t shared = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  const size_t fit = std::max<size_t>(shared / std::max<size_t>(plan.shared_bytes, 1), 1);
  const size_t at_a_time =
      device_attribute(cudaDevAttrMultiProcessorCount) * std::min<size_t>(fit, kMostPerMultiprocessor);
  const size_t affordable = std::max<size_t>(kMaxPartialBytes / (parameter_count(chain) * sizeof(T)), 1);
  return static_cast<int>(std::min({at_a_time, affordable, static_cast<size_t>(plan.tiles)}));
}

/// Values of the gradient with respect to the first stage's output that go through memory.
size_t first_diff_count(const GroupConvolutionChain& chain, const TilePlan& plan) {
  const GroupConvolutionStage& s = chain.stages.front();
  if (plan.gather || pointwise_count(chain, plan) == 0) return 0;
  return static_cast<size_t>(chain.batch) * s.out_channels * s.out_height * s.out_width;
}

}  // namespace

template <typename T>
size_t tiles_workspace_bytes(const GroupConvolutionChain& chain, bool backward) {
  if (!backward) return 0;
  TilePlan plan;
  plan_tiles<T>(chain, true, &plan);
  return (first_diff_count(chain, plan) + block_count<T>(chain, plan) * parameter_count(chain)) * sizeof(T);
}

template <typename T>
void tiles_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream) {
  TilePlan plan;
  plan_tiles<T>(chain, true, &plan);
  const TileArguments<T> arguments = tile_arguments(chain, plan, tables, bottom, parameters);
  Segments<T> segments;
  const PartialLayout layout = lay_out_partials(chain, plan, gradients, &segments);
  const int blocks = block_count<T>(chain, plan);
  T* between = static_cast<T*>(workspace);
  T* partials = between + first_diff_count(chain, plan);

  const BottomFinish<T> finish = bottom_finish(gradients, bottom);
  T* first_diff = nullptr;
  if (gradients.bottom && (plan.gather || arguments.pointwise > 0)) {
    first_diff = plan.gather ? gradients.bottom : between;
  }
  if (first_diff || layout.entries > 0) {
    launch(backward_tiles<T>, dim3(blocks), plan.shared_bytes, stream, arguments, layout, bottom, top_diff, partials,
           plan.gather ? finish : BottomFinish<T>(), first_diff);
  }
  add_partial_sums<T>(partials, blocks, segments, stream);
  if (gradients.bottom && !plan.gather) {
    first_backward_data(arguments, arguments.pointwise > 0 ? between : top_diff, finish, gradients.bottom, stream);
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
