#pragma once

// One source for every instruction set: batch_norm_{portable,avx2}.cpp include it, each compiled for its own.
// Everything is in an anonymous namespace and only C headers are used, so that no AVX copy of a shared function exists.
//
// A thread takes a few neighbouring channels and makes all its passes over them: a channel of a batch (64 x 32 x 32
// floats are 256 KB) stays in the caches, so memory is read once per tensor, not once per pass. The first pass over a
// tensor fetches the next image's channels, which are far away and which the processor does not foresee; the last pass
// fetches the channels of the next block, so that memory is not idle while a thread computes from its caches. Sums go
// through the images in order, whatever the number of threads.

#include <omp.h>
#include <stddef.h>

#include "caffe_layers/kernels/batch_norm_operands.hpp"
#include "caffe_layers/kernels/batch_norm_vectors.hpp"
#include "caffe_layers/kernels/simd/integers.hpp"
#include "caffe_layers/kernels/simd/jobs.hpp"
#include "caffe_layers/kernels/streaming.hpp"

namespace caffe_layers {
namespace {

constexpr int kMaxBlock = 64;        // channels a thread keeps the sums of
constexpr int kRunBytes = 16384;     // neighbouring channels are joined until an image has this much in all tensors
constexpr int kBlocksPerThread = 8;  // or less than a run of each image, so that none waits long for the last
constexpr int kSmall = 1 << 14;      // values for which waking threads does not pay

/// Neighbouring channels that a thread works on. `to_next`: from each to the channel to fetch for the block that the
/// thread will probably take next; 0 if none is left: to fetch another thread's would take them from it while it
/// writes.
struct Block {
  int first, count, to_next;
};

inline ptrdiff_t offset(const BatchNormShape& shape, int n, int c) {
  return (ptrdiff_t(n) * shape.channels + c) * shape.spatial;
}

/// From a value of image n to that of the next image; 0 behind the last.
inline ptrdiff_t to_next_image(const BatchNormShape& shape, int n) {
  return n + 1 < shape.num ? offset(shape, 1, 0) : 0;
}

inline double values_per_channel(const BatchNormShape& shape) { return double(shape.num) * shape.spatial; }

template <typename T>
inline double inverse_std(T variance, T eps) {
  return 1 / __builtin_sqrt(double(variance) + eps);
}

/// Batch norm without residual and ReLU: forward and backward must agree on it to the last bit, for the sign.
template <typename T>
struct Affine {
  T mean, scale, shift;
  template <typename V>
  V operator()(V x) const {
    return (x - mean) * scale + shift;
  }
};

/// Those of a block's channels, once for all images: a root and a division take longer than a small map.
template <typename T>
struct Affines {
  Affine<T> of[kMaxBlock];

  template <typename Pass>
  Affines(const Pass& p, const Block& block) {
    for (int k = 0; k < block.count; ++k) {
      const int c = block.first + k;
      of[k] = {p.mean[c], T(p.gamma[c] * inverse_std(p.variance[c], p.eps)), p.beta[c]};
    }
  }
};

/// Mean and variance. Sums are of x minus the channel's mean in the first image: one pass, and squares lose at most a
/// factor `num` of precision, whatever the data.
template <typename T>
void statistics(const BatchNormForward<T>& p, const Block& block) {
  const int spatial = p.shape.spatial;
  const double m = values_per_channel(p.shape);
  T shift[kMaxBlock];
  Sums<T> sums[kMaxBlock];
  for (int k = 0; k < block.count; ++k) {
    const T* x = p.x + offset(p.shape, 0, block.first + k);
    Sums<T> sum;
    add_terms<T>(
        spatial,
        [=](auto v, int i) {
          return Pair<decltype(v)>{load<decltype(v)>(x + i), {}};
        },
        &sum);
    shift[k] = T(sum.first() / spatial);
  }
  for (int n = 0; n < p.shape.num; ++n) {
    for (int k = 0; k < block.count; ++k) {
      const T* x = p.x + offset(p.shape, n, block.first + k);
      const T *next = x + to_next_image(p.shape, n), origin = shift[k];
      const auto term = [=](auto v, int i) {
        using V = decltype(v);
        fetch<V>(next + i);
        const V d = load<V>(x + i) - origin;
        return Pair<V>{d, d * d};
      };
      add_terms<T>(spatial, term, &sums[k]);
    }
  }
  for (int k = 0; k < block.count; ++k) {
    Sums<T>& sum = sums[k];
    const double mean = sum.first() / m, variance = sum.second() / m - mean * mean;
    p.mean[block.first + k] = T(shift[k] + mean);
    p.variance[block.first + k] = T(variance < 0 ? 0 : variance);
  }
}

template <typename T, bool kResidual, bool kRelu, bool kStream>
void normalise(const BatchNormForward<T>& p, const Block& block) {
  const Affines<T> norms(p, block);
  for (int n = 0; n < p.shape.num; ++n) {
    for (int k = 0; k < block.count; ++k) {
      const ptrdiff_t first = offset(p.shape, n, block.first + k);
      const T *x = p.x + first, *residual = p.residual + (kResidual ? first : 0);
      const ptrdiff_t ahead = to_next_image(p.shape, n), next_channels = offset(p.shape, 0, block.to_next);
      T* y = p.y + first;
      const Affine<T> norm = norms.of[k];
      for_each<T>(p.shape.spatial, [=](auto v, int i) {
        using V = decltype(v);
        fetch<V>(x + next_channels + i);
        V value = norm(load<V>(x + i));
        if (kResidual) {
          fetch<V>(residual + ahead + i);
          value += load<V>(residual + i);
        }
        if (kRelu) value = value < T(0) ? V() : value;
        if (kStream)
          stream(y + i, value);
        else
          store(y + i, value);
      });
    }
  }
}

template <typename T, bool kStream>
void normalise(const BatchNormForward<T>& p, const Block& block) {
  if (p.residual)
    p.relu ? normalise<T, true, true, kStream>(p, block) : normalise<T, true, false, kStream>(p, block);
  else
    p.relu ? normalise<T, false, true, kStream>(p, block) : normalise<T, false, false, kStream>(p, block);
}

/// Whether results go past the caches: unless they overwrite what has just been read.
template <typename T>
bool worth_streaming(const BatchNormShape& shape, const T* to, const T* read, const T* also_read) {
  const size_t image_bytes = shape.spatial * sizeof(T);
  const bool aligned = reinterpret_cast<size_t>(to) % kVectorBytes == 0 && image_bytes % kVectorBytes == 0;
  return aligned && to != read && to != also_read && shape.num * shape.channels * image_bytes >= kStreamedBytes;
}

template <typename T>
void forward_block(const BatchNormForward<T>& p, const Block& block) {
  if (p.batch_statistics) statistics(p, block);
  if (!worth_streaming(p.shape, p.y, p.x, p.residual)) return normalise<T, false>(p, block);
  normalise<T, true>(p, block);
  end_streams();
}

enum class Mask { kNone, kSignOfX, kSignOfY };

/// The gradient in front of the ReLU, for one channel of one image.
template <typename T, Mask kMask>
struct Gradient {
  const T *x, *y, *y_diff;
  Affine<T> norm;

  Gradient(const BatchNormBackward<T>& p, const Affine<T>& norm, ptrdiff_t first)
      : x(p.x + first), y(kMask == Mask::kSignOfY ? p.y + first : nullptr), y_diff(p.y_diff + first), norm(norm) {}

  template <typename V>
  V operator()(V, int i) const {
    V g = load<V>(y_diff + i);
    if (kMask == Mask::kSignOfX) g = norm(load<V>(x + i)) > T(0) ? g : V();
    if (kMask == Mask::kSignOfY) g = load<V>(y + i) > T(0) ? g : V();
    return g;
  }

  template <typename V>
  void fetch_ahead(V, ptrdiff_t i) const {
    fetch<V>(x + i);
    fetch<V>(y_diff + i);
    if (kMask == Mask::kSignOfY) fetch<V>(y + i);
  }
};

/// sums[k]: of the gradient, and of the gradient times (x - mean). Starts from zeros; writes residual_diff on the way.
template <typename T, Mask kMask>
void sum_gradients(const BatchNormBackward<T>& p, const Affines<T>& norms, const Block& block, Sums<T>* sums) {
  for (int n = 0; n < p.shape.num; ++n) {
    for (int k = 0; k < block.count; ++k) {
      const ptrdiff_t first = offset(p.shape, n, block.first + k);
      const Gradient<T, kMask> gradient(p, norms.of[k], first);
      const ptrdiff_t ahead = to_next_image(p.shape, n);
      const auto term = [&gradient, ahead](auto v, int i) {
        using V = decltype(v);
        gradient.fetch_ahead(v, ahead + i);
        const V g = gradient(v, i);
        return Pair<V>{g, g * (load<V>(gradient.x + i) - gradient.norm.mean)};
      };
      if (T* residual_diff = p.residual_diff ? p.residual_diff + first : nullptr) {
        const auto storing_term = [=](auto v, int i) {
          const auto t = term(v, i);
          store(residual_diff + i, t.first);
          return t;
        };
        add_terms<T>(p.shape.spatial, storing_term, &sums[k]);
      } else {
        add_terms<T>(p.shape.spatial, term, &sums[k]);
      }
    }
  }
}

/// x_diff = scale * (gradient - mean of gradient - normalised x * mean of (gradient * normalised x)).
template <typename T, Mask kMask, bool kStream>
void write_x_diff(const BatchNormBackward<T>& p, const Affines<T>& norms, const Block& block, Sums<T>* sums) {
  const double m = values_per_channel(p.shape);
  T of_x[kMaxBlock] = {}, constant[kMaxBlock] = {};
  for (int k = 0; k < block.count && p.batch_statistics; ++k) {
    const int c = block.first + k;
    const double inverse = inverse_std(p.variance[c], p.eps), scale = p.gamma[c] * inverse;
    of_x[k] = T(-scale * inverse * inverse * sums[k].second() / m);
    constant[k] = T(-scale * sums[k].first() / m);
  }
  for (int n = 0; n < p.shape.num; ++n) {
    for (int k = 0; k < block.count; ++k) {
      const ptrdiff_t first = offset(p.shape, n, block.first + k);
      const Gradient<T, kMask> gradient(p, norms.of[k], first);
      const T b = of_x[k], a = constant[k];
      T* x_diff = p.x_diff + first;
      const ptrdiff_t next_channels = offset(p.shape, 0, block.to_next);
      for_each<T>(p.shape.spatial, [=](auto v, int i) {
        using V = decltype(v);
        gradient.fetch_ahead(v, next_channels + i);
        const V value = gradient(v, i) * gradient.norm.scale + ((load<V>(gradient.x + i) - gradient.norm.mean) * b + a);
        if (kStream)
          stream(x_diff + i, value);
        else
          store(x_diff + i, value);
      });
    }
  }
}

template <typename T, Mask kMask>
void write_x_diff(const BatchNormBackward<T>& p, const Affines<T>& norms, const Block& block, Sums<T>* sums) {
  if (!worth_streaming(p.shape, p.x_diff, p.y_diff, p.y_diff))
    return write_x_diff<T, kMask, false>(p, norms, block, sums);
  write_x_diff<T, kMask, true>(p, norms, block, sums);
  end_streams();
}

template <typename T, Mask kMask>
void backward_block(const BatchNormBackward<T>& p, const Block& block) {
  const Affines<T> norms(p, block);
  Sums<T> sums[kMaxBlock];
  sum_gradients<T, kMask>(p, norms, block, sums);
  for (int k = 0; k < block.count; ++k) {
    const int c = block.first + k;
    if (p.beta_diff) p.beta_diff[c] += T(sums[k].first());
    if (p.gamma_diff) p.gamma_diff[c] += T(sums[k].second() * inverse_std(p.variance[c], p.eps));
  }
  if (!p.x_diff) return;
  if (!p.residual_diff) return write_x_diff<T, kMask>(p, norms, block, sums);
  BatchNormBackward<T> masked = p;  // residual_diff is the gradient in front of the ReLU
  masked.y_diff = p.residual_diff;
  write_x_diff<T, Mask::kNone>(masked, norms, block, sums);
}

/// Calls work(p, block) for blocks of channels, shared by all threads. `tensors`: those that work wants in the caches
/// from one of its passes to the next, at most.
template <typename Pass, typename Work>
void for_blocks(const Pass& p, int tensors, Work work) {
  const BatchNormShape& shape = p.shape;
  const size_t channel_bytes = tensors * shape.spatial * sizeof(*p.x);
  const int run = channel_bytes >= kRunBytes ? 1 : smaller(int(kRunBytes / channel_bytes), kMaxBlock);
  const bool parallel = values_per_channel(shape) * shape.channels > kSmall;
  const int threads = parallel ? omp_get_max_threads() : 1;
  const int size = smaller(run, larger(1, shape.channels / (kBlocksPerThread * threads)));
  SharedJobs jobs((shape.channels + size - 1) / size);
#pragma omp parallel num_threads(threads)
  jobs.run([&](ptrdiff_t job, ptrdiff_t next) {
    const int first = int(job) * size;
    work(p, Block{first, smaller(size, shape.channels - first), (int(next) - int(job)) * size});
  });
}

template <typename T>
void forward(const BatchNormForward<T>& p) {
  for_blocks(p, 1, forward_block<T>);
}

template <typename T>
void backward(const BatchNormBackward<T>& p) {
  if (!p.relu) return for_blocks(p, 2, backward_block<T, Mask::kNone>);
  if (!p.residual) return for_blocks(p, 2, backward_block<T, Mask::kSignOfX>);
  for_blocks(p, 3, backward_block<T, Mask::kSignOfY>);
}

}  // namespace
}  // namespace caffe_layers
