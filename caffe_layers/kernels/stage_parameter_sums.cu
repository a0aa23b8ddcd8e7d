#include "caffe_layers/kernels/group_convolution_stages.cuh"
#include "caffe_layers/kernels/lane_sums.cuh"

// Plain kernels for the gradients of one stage's parameters.

namespace caffe_layers {

namespace {

/// Calls visit(image, pixel of the output map) for this thread's share of the block's slice.
template <typename Visit>
__device__ __forceinline__ void for_slice(const StageShape& s, Visit visit) {
  const size_t plane = s.out_height * s.out_width, count = s.batch * plane, step = gridDim.y * kThreads;
  for (size_t at = blockIdx.y * kThreads + threadIdx.x; at < count; at += step) {
    visit(at / plane, static_cast<int>(at % plane));
  }
}

/// partials[slice][o][i][ky][kx] = sum of out_diff * in over the slice's pixels; block (o * I + i, slice).
template <typename T>
__global__ void weight_partials_kernel(StageShape s, StageTables tables, const T* __restrict__ in,
                                       const T* __restrict__ out_diff, PartialSums<T> target) {
  const int o = blockIdx.x / s.group_in, i = blockIdx.x % s.group_in;
  const int in_channel = source_channel(tables, o / s.group_out * s.group_in + i);
  const int out_channel = tables.destination[o];
  const int plane = s.out_height * s.out_width, taps = s.kernel * s.kernel;
  for (int tap = 0; tap < taps; ++tap) {
    T sum = 0;
    for_slice(s, [&](size_t n, int p) {
      const int in_y = p / s.out_width * s.stride - s.pad + tap / s.kernel * s.dilation;
      const int in_x = p % s.out_width * s.stride - s.pad + tap % s.kernel * s.dilation;
      if (in_y < 0 || in_y >= s.in_height || in_x < 0 || in_x >= s.in_width) return;
      const T* image = in + (n * s.in_channels + in_channel) * s.in_height * s.in_width;
      sum += out_diff[(n * s.out_channels + out_channel) * plane + p] * image[in_y * s.in_width + in_x];
    });
    sum = block_sum(sum, shared_memory<T>());
    if (threadIdx.x == 0) {
      target.partials[static_cast<size_t>(blockIdx.y) * target.entries + target.entry + blockIdx.x * taps + tap] = sum;
    }
  }
}

/// partials[slice][o] = sum of out_diff over the slice's pixels; block (o, slice).
template <typename T>
__global__ void bias_partials_kernel(StageShape s, StageTables tables, const T* __restrict__ out_diff,
                                     PartialSums<T> target) {
  const int plane = s.out_height * s.out_width, channel = tables.destination[blockIdx.x];
  T sum = 0;
  for_slice(s, [&](size_t n, int p) { sum += out_diff[(n * s.out_channels + channel) * plane + p]; });
  sum = block_sum(sum, shared_memory<T>());
  if (threadIdx.x != 0) return;
  target.partials[static_cast<size_t>(blockIdx.y) * target.entries + target.entry + blockIdx.x] = sum;
}

}  // namespace

template <typename T>
void stage_weight_sums(const StageShape& shape, const StageTables& tables, const T* in, const T* out_diff,
                       const PartialSums<T>& sums, cudaStream_t stream) {
  launch(weight_partials_kernel<T>, dim3(shape.out_channels * shape.group_in, sums.slices), kWarps * sizeof(T), stream,
         shape, tables, in, out_diff, sums);
}

template <typename T>
void stage_bias_sums(const StageShape& shape, const StageTables& tables, const T* out_diff, const PartialSums<T>& sums,
                     cudaStream_t stream) {
  launch(bias_partials_kernel<T>, dim3(shape.out_channels, sums.slices), kWarps * sizeof(T), stream, shape, tables,
         out_diff, sums);
}

template void stage_weight_sums<float>(const StageShape&, const StageTables&, const float*, const float*,
                                       const PartialSums<float>&, cudaStream_t);
template void stage_bias_sums<float>(const StageShape&, const StageTables&, const float*, const PartialSums<float>&,
                                     cudaStream_t);
template void stage_weight_sums<double>(const StageShape&, const StageTables&, const double*, const double*,
                                        const PartialSums<double>&, cudaStream_t);
template void stage_bias_sums<double>(const StageShape&, const StageTables&, const double*, const PartialSums<double>&,
                                      cudaStream_t);

}  // namespace caffe_layers
