#include <algorithm>
#include <cmath>

#include "caffe_layers/kernels/batch_norm_cuda.hpp"
#include "caffe_layers/kernels/lane_sums.cuh"

// A block works on a slice of one channel: blockIdx.x is the channel, blockIdx.y the slice. The first kernel of a pass
// leaves two sums per block, the second one adds up those of its channel, every block for itself, and finishes the
// pass.

namespace caffe_layers {

namespace {

/// Slices of a channel: one lane of a warp each when they are added up.
constexpr int kMaxSlices = 32;
/// Blocks that keep any device busy.
constexpr int kEnoughBlocks = 1024;

int slice_count(const BatchNormShape& shape) {
  const long vectors = ceil_div(static_cast<long>(shape.num) * shape.spatial, 4L);
  const long wanted = ceil_div(kEnoughBlocks, shape.channels), useful = ceil_div<long>(vectors, kThreads);
  return static_cast<int>(std::min({wanted, useful, static_cast<long>(kMaxSlices)}));
}

/// Calls visit(index of the first value) for every WIDTH values of the block's slice that are this thread's.
template <int WIDTH, typename Visit>
__device__ __forceinline__ void for_slice(const BatchNormShape& shape, Visit visit) {
  const int packs = shape.spatial / WIDTH;
  const unsigned count = static_cast<unsigned>(shape.num) * packs, step = gridDim.y * kThreads;
  for (unsigned i = blockIdx.y * kThreads + threadIdx.x; i < count; i += step) {
    const size_t plane = static_cast<size_t>(i / packs) * shape.channels + blockIdx.x;
    visit(plane * shape.spatial + i % packs * WIDTH);
  }
}

struct Sums {
  double first, second;
};

/// Leaves the block's sums for add_up().
__device__ __forceinline__ void leave_sums(double first, double second, Sums* partials) {
  double* scratch = shared_memory<double>();
  first = block_sum(first, scratch);
  second = block_sum(second, scratch);
  if (threadIdx.x == 0) partials[blockIdx.x * gridDim.y + blockIdx.y] = {first, second};
}

/// Sums over the slices of the block's channel, in every thread. Called by all threads.
__device__ __forceinline__ Sums add_up(const Sums* partials) {
  const unsigned lane = threadIdx.x % kLanes;
  Sums sums = {0, 0};
  if (lane < gridDim.y) sums = partials[blockIdx.x * gridDim.y + lane];
  sums.first = sum_over_lanes(sums.first);
  sums.second = sum_over_lanes(sums.second);
  return sums;
}

__device__ __forceinline__ double values_per_channel(const BatchNormShape& shape) {
  return static_cast<double>(shape.num) * shape.spatial;
}

/// Batch norm without residual and ReLU. Forward and backward must agree on it to the last bit, for the sign.
template <typename T>
struct Affine {
  T mean, inverse_std, scale, shift;

  __device__ __forceinline__ Affine(T mean, T variance, T eps, T gamma, T beta)
      : mean(mean),
        inverse_std(static_cast<T>(1 / std::sqrt(static_cast<double>(variance) + eps))),
        scale(gamma * inverse_std),
        shift(beta) {}
  __device__ __forceinline__ T operator()(T x) const { return std::fma(x - mean, scale, shift); }
};

/// Sums of x and x^2 for each slice. In double, which keeps the difference of squares that gives the variance; memory
/// is what limits this kernel.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads) sum_values(BatchNormForward<T> p, Sums* __restrict__ partials) {
  double sum = 0, squares = 0;
  for_slice<WIDTH>(p.shape, [&](size_t i) {
    const Pack<T, WIDTH> x = load<WIDTH>(p.x + i);
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) {
      const double value = x.at[e];
      sum += value;
      squares += value * value;
    }
  });
  leave_sums(sum, squares, partials);
}

/// The channel's mean and biased variance.
template <typename T>
__device__ __forceinline__ void statistics(const BatchNormForward<T>& p, const MovingStatistics<T>& moving,
                                           const Sums* partials, T* mean, T* variance) {
  const int c = blockIdx.x;
  if (p.batch_statistics) {
    const Sums sums = add_up(partials);
    const double m = values_per_channel(p.shape), exact_mean = sums.first / m;
    const double biased = sums.second / m - exact_mean * exact_mean;
    *mean = static_cast<T>(exact_mean);
    *variance = static_cast<T>(biased < 0 ? 0 : biased);
  } else {
    const T factor = moving.factor[0], scale = factor == 0 ? T(0) : 1 / factor;
    *mean = moving.mean[c] * scale;
    *variance = moving.variance[c] * scale;
  }
}

/// One thread per channel.
template <typename T>
__device__ void write_statistics(const BatchNormForward<T>& p, const MovingStatistics<T>& moving, T mean, T variance) {
  const int c = blockIdx.x;
  p.mean[c] = mean;
  p.variance[c] = variance;
  if (!p.batch_statistics) return;
  const double m = values_per_channel(p.shape);
  const T unbiased = static_cast<T>(m > 1 ? m / (m - 1) : 1);
  moving.mean[c] = moving.mean[c] * moving.fraction + mean;
  moving.variance[c] = moving.variance[c] * moving.fraction + variance * unbiased;
  if (c == 0) moving.factor[0] = moving.factor[0] * moving.fraction + 1;
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads)
    normalise(BatchNormForward<T> p, MovingStatistics<T> moving, const Sums* __restrict__ partials) {
  const int c = blockIdx.x;
  T mean, variance;
  statistics(p, moving, partials, &mean, &variance);
  if (blockIdx.y == 0 && threadIdx.x == 0) write_statistics(p, moving, mean, variance);
  const Affine<T> norm(mean, variance, p.eps, p.gamma[c], p.beta[c]);
  for_slice<WIDTH>(p.shape, [&](size_t i) {
    const Pack<T, WIDTH> x = load<WIDTH>(p.x + i);
    Pack<T, WIDTH> y = {};
    if (p.residual) y = load<WIDTH>(p.residual + i);
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) {
      y.at[e] += norm(x.at[e]);
      if (p.relu && y.at[e] < 0) y.at[e] = 0;
    }
    store(p.y + i, y);
  });
}

/// The gradient in front of the ReLU.
template <int WIDTH, typename T>
__device__ __forceinline__ Pack<T, WIDTH> gradient(const BatchNormBackward<T>& p, const Affine<T>& norm, size_t i,
                                                   const Pack<T, WIDTH>& x) {
  Pack<T, WIDTH> g = load<WIDTH>(p.y_diff + i);
  Pack<T, WIDTH> y = {};
  if (p.relu && p.residual) y = load<WIDTH>(p.y + i);
#pragma unroll
  for (int e = 0; e < WIDTH; ++e) {
    const bool passes = !p.relu || (p.residual ? y.at[e] : norm(x.at[e])) > 0;
    if (!passes) g.at[e] = 0;
  }
  return g;
}

template <typename T>
__device__ __forceinline__ Affine<T> affine(const BatchNormBackward<T>& p) {
  const int c = blockIdx.x;
  return Affine<T>(p.mean[c], p.variance[c], p.eps, p.gamma[c], p.beta[c]);
}

/// Sums of the gradient and of its products with the normalised x, for each slice; writes residual_diff on the way.
template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads) sum_gradients(BatchNormBackward<T> p, Sums* __restrict__ partials) {
  const Affine<T> norm = affine(p);
  T sum = 0, products = 0;
  for_slice<WIDTH>(p.shape, [&](size_t i) {
    const Pack<T, WIDTH> x = load<WIDTH>(p.x + i);
    const Pack<T, WIDTH> g = gradient<WIDTH>(p, norm, i, x);
    if (p.residual_diff) store(p.residual_diff + i, g);
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) {
      sum += g.at[e];
      products += g.at[e] * ((x.at[e] - norm.mean) * norm.inverse_std);
    }
  });
  leave_sums(sum, products, partials);
}

template <typename T, int WIDTH>
__global__ void __launch_bounds__(kThreads)
    finish_gradients(BatchNormBackward<T> p, const Sums* __restrict__ partials) {
  const int c = blockIdx.x;
  const Sums sums = add_up(partials);
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    if (p.gamma_diff) p.gamma_diff[c] += static_cast<T>(sums.second);
    if (p.beta_diff) p.beta_diff[c] += static_cast<T>(sums.first);
  }
  if (!p.x_diff) return;
  const Affine<T> norm = affine(p);
  const double m = values_per_channel(p.shape);
  const T mean_gradient = static_cast<T>(p.batch_statistics ? sums.first / m : 0);
  const T mean_product = static_cast<T>(p.batch_statistics ? sums.second / m : 0);
  for_slice<WIDTH>(p.shape, [&](size_t i) {
    const Pack<T, WIDTH> x = load<WIDTH>(p.x + i);
    const Pack<T, WIDTH> g = p.residual_diff ? load<WIDTH>(p.residual_diff + i) : gradient<WIDTH>(p, norm, i, x);
    Pack<T, WIDTH> x_diff;
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) {
      const T normalised = (x.at[e] - norm.mean) * norm.inverse_std;
      x_diff.at[e] = norm.scale * (g.at[e] - mean_gradient - normalised * mean_product);
    }
    store(p.x_diff + i, x_diff);
  });
}

/// Can all of these be read and written 16 bytes at a time?
template <typename T, typename... Pointers>
bool vectors(const BatchNormShape& shape, const Pointers*... pointers) {
  return shape.spatial % Vector<T>::size == 0 && (is_vector_aligned(pointers) && ...);
}

constexpr size_t kScratchBytes = kWarps * sizeof(double);

template <typename T, int WIDTH>
void forward(const BatchNormForward<T>& pass, const MovingStatistics<T>& moving, Sums* partials, cudaStream_t stream) {
  const dim3 blocks(pass.shape.channels, slice_count(pass.shape));
  if (pass.batch_statistics) launch(sum_values<T, WIDTH>, blocks, kScratchBytes, stream, pass, partials);
  launch(normalise<T, WIDTH>, blocks, 0, stream, pass, moving, partials);
}

template <typename T, int WIDTH>
void backward(const BatchNormBackward<T>& pass, Sums* partials, cudaStream_t stream) {
  const dim3 blocks(pass.shape.channels, slice_count(pass.shape));
  launch(sum_gradients<T, WIDTH>, blocks, kScratchBytes, stream, pass, partials);
  launch(finish_gradients<T, WIDTH>, blocks, 0, stream, pass, partials);
}

}  // namespace

size_t batch_norm_workspace_bytes_cuda(const BatchNormShape& shape) {
  return sizeof(Sums) * shape.channels * slice_count(shape);
}

template <typename T>
void batch_norm_forward_cuda(const BatchNormForward<T>& pass, const MovingStatistics<T>& moving, void* workspace,
                             cudaStream_t stream) {
  Sums* partials = static_cast<Sums*>(workspace);
  if (vectors<T>(pass.shape, pass.x, pass.residual, pass.y)) {
    forward<T, Vector<T>::size>(pass, moving, partials, stream);
  } else {
    forward<T, 1>(pass, moving, partials, stream);
  }
}

template <typename T>
void batch_norm_backward_cuda(const BatchNormBackward<T>& pass, void* workspace, cudaStream_t stream) {
  Sums* partials = static_cast<Sums*>(workspace);
  if (vectors<T>(pass.shape, pass.x, pass.y, pass.y_diff, pass.x_diff, pass.residual_diff)) {
    backward<T, Vector<T>::size>(pass, partials, stream);
  } else {
    backward<T, 1>(pass, partials, stream);
  }
}

template void batch_norm_forward_cuda<float>(const BatchNormForward<float>&, const MovingStatistics<float>&, void*,
                                             cudaStream_t);
template void batch_norm_forward_cuda<double>(const BatchNormForward<double>&, const MovingStatistics<double>&, void*,
                                              cudaStream_t);
template void batch_norm_backward_cuda<float>(const BatchNormBackward<float>&, void*, cudaStream_t);
template void batch_norm_backward_cuda<double>(const BatchNormBackward<double>&, void*, cudaStream_t);

}  // namespace caffe_layers
