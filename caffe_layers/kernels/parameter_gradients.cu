#include "caffe_layers/kernels/parameter_gradients.cuh"

#include <algorithm>

#include "caffe_layers/kernels/spatial_gradients.cuh"

namespace caffe_layers {

namespace {

/// Partial sums of all slices together take no more than this, unless one slice does.
constexpr size_t kMaxPartialBytes = size_t(64) << 20;
/// Blocks of pointwise_weight_sums that a multiprocessor runs at a time, by their registers.
template <typename T>
constexpr int kBlocksPerMultiprocessor = sizeof(T) == sizeof(float) ? 2 : 1;

/// Pixels that a thread takes at a time: with more, registers spill.
constexpr int kPixels = 2;

/// Offsets within an image of a unit's kSide inputs, and after them of its kSide outputs; past the group's end any.
template <typename T>
__device__ __forceinline__ int channel_offset(const PointwiseGradient<T>& g, int group, int i0, int o0, size_t plane) {
  const int c = threadIdx.x % kSide;
  if (threadIdx.x < kSide) {
    const int i = group * g.group_in + (i0 + c < g.group_in ? i0 + c : i0);
    return (g.tables.source ? g.tables.source[i] : i) * plane;
  }
  return g.tables.destination[group * g.group_out + (o0 + c < g.group_out ? o0 + c : o0)] * plane;
}

/// sums[o][i] += out_diff * in over this thread's pixels of the block's slice, WIDTH at a time.
template <int WIDTH, typename T>
__device__ __forceinline__ void add_pixels(const PointwiseGradient<T>& g, int plane, unsigned count,
                                           const Divisor& packs, const int* offset, T (&sums)[kSums]) {
  for (unsigned at = blockIdx.y * kThreads + threadIdx.x; at < count; at += gridDim.y * kThreads) {
    unsigned pack = at;
    const size_t image = static_cast<size_t>(packs.divide(&pack)) * plane;
    const T* in = g.in + image * g.in_channels + pack * WIDTH;
    const T* out_diff = g.out_diff + image * g.out_channels + pack * WIDTH;
    Pack<T, WIDTH> x[kSide];
#pragma unroll
    for (int i = 0; i < kSide; ++i) x[i] = load<WIDTH>(in + offset[i]);
    add_weight_sums(
        x, [&](int o) { return load<WIDTH>(out_diff + offset[kSide + o]); }, sums);
  }
}

/// Block (unit, slice). packs: of WIDTH pixels in a map; count: of them in the batch.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor<T>)
    pointwise_weight_sums(const __grid_constant__ PointwiseGradients<T> a, Divisor packs, unsigned count,
                          T* __restrict__ partials) {
  T* of_warps = shared_memory<T>();
  int* offset = reinterpret_cast<int*>(of_warps + kWarps * kSums);
  int s = 0;
  while (s + 1 < a.stages && static_cast<int>(blockIdx.x) >= a.stage[s + 1].first_unit) ++s;
  const PointwiseGradient<T>& g = a.stage[s];
  unsigned in_block = blockIdx.x - g.first_unit, out_block = g.in_blocks.divide(&in_block);
  const int group = g.out_blocks.divide(&out_block), i0 = in_block * kSide, o0 = out_block * kSide;
  if (threadIdx.x < 2 * kSide) offset[threadIdx.x] = channel_offset(g, group, i0, o0, a.plane);
  __syncthreads();
  T sums[kSums] = {};
  add_pixels<WIDTH>(g, a.plane, count, packs, offset, sums);
  scatter_sums_over_lanes(sums);
#pragma unroll
  for (int k = 0; k < 2; ++k) of_warps[threadIdx.x * 2 + k] = sums[k];
  __syncthreads();
  const int o = o0 + threadIdx.x / kSide, i = i0 + threadIdx.x % kSide;
  if (threadIdx.x >= kSums || o >= g.group_out || i >= g.group_in) return;
  const size_t entry = static_cast<size_t>(blockIdx.y) * a.entries + g.entry;
  partials[entry + (group * g.group_out + o) * g.group_in + i] = sum_over_warps(of_warps, kSums, threadIdx.x);
}

size_t parameter_count(const GroupConvolutionChain& chain) {
  size_t count = 0;
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    count += weight_count(stage_shape(chain, s)) + (chain.stages[s].bias ? chain.stages[s].out_channels : 0);
  }
  return count;
}

int unit_count(const GroupConvolutionStage& s) {
  return s.group * ceil_div(s.in_channels / s.group, kSide) * ceil_div(s.out_channels / s.group, kSide);
}

/// Into how many slices the batch is divided: as many as let the weight gradients' blocks, which take turns on the
/// device's multiprocessors, end first; those of all 1x1 stages, or of a chain without any, its only stage's.
template <typename T>
int slice_count(const GroupConvolutionChain& chain) {
  constexpr size_t kMostTurns = 8;
  constexpr size_t kReduction = 5, kStep = 4;  // what adding up a block's threads costs, in quarters of a thread's step
  const GroupConvolutionStage& last = chain.stages.back();
  size_t units = 0;
  for (const GroupConvolutionStage& s : chain.stages) {
    if (s.kernel == 1) units += unit_count(s);
  }
  if (units == 0) units = static_cast<size_t>(last.out_channels) * (last.in_channels / last.group);
  const size_t packs = static_cast<size_t>(chain.batch) * ceil_div(last.out_height * last.out_width, kPixels);
  const size_t at_a_time = device_attribute(cudaDevAttrMultiProcessorCount) * kBlocksPerMultiprocessor<T>;
  const size_t affordable = kMaxPartialBytes / (parameter_count(chain) * sizeof(T));
  const size_t most = std::max<size_t>(std::min(ceil_div<size_t>(packs, kThreads), affordable), 1);
  const auto time = [&](size_t slices) {
    return ceil_div(units * slices, at_a_time) * (kStep * ceil_div(packs, slices * kThreads) + kReduction);
  };
  size_t best = 1;
  for (size_t turns = 1; turns <= kMostTurns; ++turns) {
    const size_t slices = std::min(std::max<size_t>(turns * at_a_time / units, 1), most);
    if (time(slices) < time(best)) best = slices;
  }
  return static_cast<int>(best);
}

}  // namespace

template <typename T>
size_t partial_sum_count(const GroupConvolutionChain& chain) {
  return slice_count<T>(chain) * parameter_count(chain);
}

template <typename T>
ParameterGradients<T>::ParameterGradients(const GroupConvolutionChain& chain, const ChainGradients<T>& gradients,
                                          T* partials, cudaStream_t stream)
    : chain_(chain), partials_(partials), stream_(stream), slices_(slice_count<T>(chain)) {
  const auto add = [this](T* target, size_t size) {
    if (!target) return -1;
    segments_.add(target, static_cast<int>(size));
    return segments_.first[segments_.count - 1];
  };
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    weight_entry_.push_back(add(gradients.weight[s], weight_count(stage_shape(chain, s))));
    bias_entry_.push_back(add(gradients.bias[s], chain.stages[s].out_channels));
  }
}

template <typename T>
void ParameterGradients<T>::pointwise(size_t s, const StageTables& tables, const T* in, const T* out_diff) {
  if (weight_entry_[s] < 0) return;
  const GroupConvolutionStage& stage = chain_.stages[s];
  const int group_in = stage.in_channels / stage.group, group_out = stage.out_channels / stage.group;
  pointwise_.stage[pointwise_.stages++] = {tables,
                                           in,
                                           out_diff,
                                           stage.in_channels,
                                           stage.out_channels,
                                           group_in,
                                           group_out,
                                           Divisor(ceil_div(group_in, kSide)),
                                           Divisor(ceil_div(group_out, kSide)),
                                           units_,
                                           weight_entry_[s]};
  units_ += unit_count(stage);
  pointwise_.plane = stage.out_height * stage.out_width;
  aligned_ = aligned_ && is_vector_aligned(in) && is_vector_aligned(out_diff);
}

template <typename T>
void ParameterGradients<T>::spatial(size_t s, const StageTables& tables, const T* in, const T* out_diff) {
  if (weight_entry_[s] < 0) return;
  spatial_weight_sums<T>(stage_shape(chain_, s), tables, in, out_diff,
                         {partials_, slices_, weight_entry_[s], segments_.size()}, stream_);
}

template <typename T>
void ParameterGradients<T>::bias(size_t s, const StageTables& tables, const T* out_diff) {
  if (bias_entry_[s] < 0) return;
  stage_bias_sums<T>(stage_shape(chain_, s), tables, out_diff, {partials_, slices_, bias_entry_[s], segments_.size()},
                     stream_);
}

template <typename T>
void ParameterGradients<T>::add_up() {
  pointwise_.entries = segments_.size();
  if (pointwise_.stages > 0) {
    constexpr size_t kSharedBytes = kWarps * kSums * sizeof(T) + 2 * kSide * sizeof(int);
    const bool pairs = aligned_ && pointwise_.plane % kPixels == 0;
    const auto kernel = pairs ? pointwise_weight_sums<T, kPixels> : pointwise_weight_sums<T, 1>;
    const unsigned packs = pointwise_.plane / (pairs ? kPixels : 1);
    launch(kernel, dim3(units_, slices_), kSharedBytes, stream_, pointwise_, Divisor(packs), chain_.batch * packs,
           partials_);
  }
  add_partial_sums<T>(partials_, slices_, segments_, stream_);
}

template size_t partial_sum_count<float>(const GroupConvolutionChain&);
template size_t partial_sum_count<double>(const GroupConvolutionChain&);
template class ParameterGradients<float>;
template class ParameterGradients<double>;

}  // namespace caffe_layers
