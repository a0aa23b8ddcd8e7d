#pragma once

#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"

// What the kernels of both directions are made of. Everything here is done by a whole block together, or by one thread.

namespace caffe_layers {

/// Pixels of all channels of one image: channel c, pixel p at data[c * stride + p]; pixels from `limit` on do not
/// exist.
template <typename T>
struct PixelRows {
  T* data;
  int stride, limit;
  /// Rows start at multiples of 16 bytes and limit is a multiple of the vector size.
  bool vectors;
  /// What store_pixels does before it stores: adds these pixels, laid out as data (null: none), takes the ReLU, and
  /// gives zero where those pixels are not positive (null: nowhere).
  const T* residual = nullptr;
  bool relu = false;
  const T* positive = nullptr;
};

/// An array in shared memory.
template <typename T>
__device__ __forceinline__ PixelRows<T> shared_rows(T* data, int pixels) {
  return {data, pixels, pixels, true};
}

/// Stores one value, at data[at].
template <typename T>
__device__ __forceinline__ void store_pixel(const PixelRows<T>& to, size_t at, T value) {
  if (to.residual) value += to.residual[at];
  const bool zero = (to.relu && value < 0) || (to.positive && !(to.positive[at] > 0));
  to.data[at] = zero ? T(0) : value;
}

template <typename T>
__device__ __forceinline__ void store_pixels(const PixelRows<T>& to, int channel, int pixel, Vector<T> value) {
  const size_t at = static_cast<size_t>(channel) * to.stride + pixel;
  if (to.vectors && !to.residual && !to.positive) {
    if (pixel >= to.limit) return;
#pragma unroll
    for (int e = 0; e < Vector<T>::size; ++e) value.at[e] = to.relu && value.at[e] < 0 ? T(0) : value.at[e];
    store_vector(to.data + at, value);
    return;
  }
#pragma unroll
  for (int e = 0; e < Vector<T>::size; ++e) {
    if (pixel + e < to.limit) store_pixel(to, at + e, value.at[e]);
  }
}

/// Zero where there is no pixel.
template <typename T>
__device__ __forceinline__ Vector<T> load_pixels(const PixelRows<const T>& from, int channel, int pixel) {
  const T* row = from.data + static_cast<size_t>(channel) * from.stride;
  Vector<T> value = {};
  if (from.vectors) {
    if (pixel < from.limit) value = load_vector(row + pixel);
    return value;
  }
#pragma unroll
  for (int e = 0; e < Vector<T>::size; ++e) {
    if (pixel + e < from.limit) value.at[e] = row[pixel + e];
  }
  return value;
}

/// Where a tile lies: its image, and its first pixel in the output map.
struct TilePosition {
  int image, first_pixel;
};
__device__ __forceinline__ TilePosition tile_position(const TilePlan& plan, int tile) {
  return {tile / plan.tiles_per_image, tile % plan.tiles_per_image * plan.pixels};
}

/// A tile of a tensor in global memory with `channels` maps of `plane` pixels per image.
template <typename T>
__device__ __forceinline__ PixelRows<T> global_rows(T* tensor, int channels, int plane, const TilePlan& plan,
                                                    const TilePosition& position) {
  const bool vectors = plane % Vector<T>::size == 0 && reinterpret_cast<size_t>(tensor) % 16 == 0;
  T* data = tensor + static_cast<size_t>(position.image) * channels * plane + position.first_pixel;
  const int left = plane - position.first_pixel;
  return {data, plane, left < plan.pixels ? left : plan.pixels, vectors};
}

/// values[i] = row[STRIDE * x - 1 + i]: what V outputs from column x on of a 3x3, pad 1, convolution read. Zeros
/// outside.
template <int STRIDE, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void load_window(const T* plane, int height, int width, int y, int x,
                                            T (&values)[STRIDE * (V - 1) + 3]) {
  const bool inside = y >= 0 && y < height;
  const T* row = plane + (inside ? y * width : 0) + STRIDE * x;
  values[0] = inside && x > 0 ? row[-1] : T(0);
#pragma unroll
  for (int part = 0; part < STRIDE; ++part) {
    const Vector<T> middle = inside ? load_vector(row + part * V) : Vector<T>{};
#pragma unroll
    for (int e = 0; e < V; ++e) values[1 + part * V + e] = middle.at[e];
  }
  if (STRIDE == 1) values[V + 1] = inside && x + V < width ? row[V] : T(0);
}

/// sums[r][e] += 3x3, pad 1, convolution of one input map at output row y + r, column x + e. `flip` turns the kernel by
/// 180 degrees, as the gradient with respect to the data wants it.
template <int STRIDE, int ROWS, typename T, int V = Vector<T>::size>
__device__ __forceinline__ void convolve_rows(const T* plane, int height, int width, int y, int x, const T* weight,
                                              bool flip, T (&sums)[ROWS][V]) {
  T w[9];
#pragma unroll
  for (int tap = 0; tap < 9; ++tap) w[tap] = weight[flip ? 8 - tap : tap];
#pragma unroll
  for (int r = 0; r < STRIDE * (ROWS - 1) + 3; ++r) {
    T window[STRIDE * (V - 1) + 3];
    load_window<STRIDE>(plane, height, width, STRIDE * y - 1 + r, x, window);
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
      const int ky = r - STRIDE * row;
      if (ky < 0 || ky > 2) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) {
#pragma unroll
        for (int kx = 0; kx < 3; ++kx) sums[row][e] += w[ky * 3 + kx] * window[STRIDE * e + kx];
      }
    }
  }
}

/// The first stage, 3x3, ROWS output rows per thread.
template <int STRIDE, int ROWS, typename T, int V = Vector<T>::size>
__device__ void first_stage_rows(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                 const PixelRows<T>& out) {
  const StageShape& s = a.first;
  const int columns = s.out_width / V, chunks = a.plan.pixels / s.out_width / ROWS;
  for (int item = threadIdx.x; item < s.out_channels * chunks * columns; item += kThreads) {
    const int x = item % columns * V, row = item / columns % chunks * ROWS, o = item / columns / chunks;
    const T bias = a.first_bias ? a.first_bias[o] : T(0);
    T sums[ROWS][V];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int e = 0; e < V; ++e) sums[r][e] = bias;
    }
    for (int i = 0; i < s.group_in; ++i) {
      const int channel = a.first_tables.source[o / s.group_out * s.group_in + i];
      const size_t map = static_cast<size_t>(position.image) * s.in_channels + channel;
      convolve_rows<STRIDE, ROWS>(bottom + map * s.in_height * s.in_width, s.in_height, s.in_width,
                                  position.first_pixel / s.out_width + row, x,
                                  a.first_weight + (static_cast<size_t>(o) * s.group_in + i) * 9, false, sums);
    }
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      Vector<T> value;
#pragma unroll
      for (int e = 0; e < V; ++e) value.at[e] = sums[r][e];
      store_pixels(out, a.first_tables.destination[o], (row + r) * s.out_width + x, value);
    }
  }
}

/// The input value that output pixel p of one map meets under one tap of the first stage's kernel; zero outside.
template <typename T>
__device__ __forceinline__ T tap_value(const StageShape& s, const T* map, int pixel, int tap) {
  const int y = pixel / s.out_width * s.stride - s.pad + tap / s.kernel * s.dilation;
  const int x = pixel % s.out_width * s.stride - s.pad + tap % s.kernel * s.dilation;
  return y >= 0 && y < s.in_height && x >= 0 && x < s.in_width ? map[y * s.in_width + x] : T(0);
}

/// The first stage, any shape, one output per thread. Pixels past the map's end get zero.
template <typename T>
__device__ void first_stage_any(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                const PixelRows<T>& out) {
  const StageShape& s = a.first;
  const int taps = s.kernel * s.kernel, plane = s.out_height * s.out_width;
  for (int item = threadIdx.x; item < s.out_channels * a.plan.pixels; item += kThreads) {
    const int p = item % a.plan.pixels, o = item / a.plan.pixels;
    const bool exists = position.first_pixel + p < plane;
    T sum = exists && a.first_bias ? a.first_bias[o] : T(0);
    for (int i = 0; exists && i < s.group_in; ++i) {
      const int channel = a.first_tables.source[o / s.group_out * s.group_in + i];
      const size_t map = static_cast<size_t>(position.image) * s.in_channels + channel;
      const T* weight = a.first_weight + (static_cast<size_t>(o) * s.group_in + i) * taps;
      for (int tap = 0; tap < taps; ++tap) {
        sum += weight[tap] * tap_value(s, bottom + map * s.in_height * s.in_width, position.first_pixel + p, tap);
      }
    }
    if (p < out.limit) store_pixel(out, static_cast<size_t>(a.first_tables.destination[o]) * out.stride + p, sum);
  }
}

/// Position in an input map of output pixel p of a 1x1 stage with a stride.
__device__ __forceinline__ int strided_pixel(const StageShape& s, int pixel) {
  return pixel / s.out_width * s.stride * s.in_width + pixel % s.out_width * s.stride;
}

/// The input of a 1x1 first stage, in the order of its channels. Pixels past the map's end are zero.
template <typename T>
__device__ void gather_pixels(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                              const PixelRows<T>& out) {
  constexpr int V = Vector<T>::size;
  const StageShape& s = a.first;
  const int vectors = a.plan.pixels / V, plane = s.in_height * s.in_width;
  const PixelRows<const T> in = global_rows(bottom, s.in_channels, plane, a.plan, position);
  for (int item = threadIdx.x; item < s.in_channels * vectors; item += kThreads) {
    const int p = item % vectors * V, i = item / vectors, channel = a.first_tables.source[i];
    Vector<T> value = {};
    if (s.stride == 1) {
      value = load_pixels(in, channel, p);
    } else {
      const T* map = bottom + (static_cast<size_t>(position.image) * s.in_channels + channel) * plane;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const int pixel = position.first_pixel + p + e;
        if (pixel < s.out_height * s.out_width) value.at[e] = map[strided_pixel(s, pixel)];
      }
    }
    store_pixels(out, i, p, value);
  }
}

/// What comes before the 1x1 stages.
template <typename T>
__device__ void first_stage(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                            const PixelRows<T>& out) {
  const int rows = a.plan.pixels / a.first.out_width;
  if (a.plan.gather) {
    gather_pixels(a, bottom, position, out);
  } else if (!a.plan.rows) {
    first_stage_any(a, bottom, position, out);
  } else if (a.first.stride == 2) {
    first_stage_rows<2, 1>(a, bottom, position, out);
  } else if (rows % 4 == 0) {
    first_stage_rows<1, 4>(a, bottom, position, out);
  } else if (rows % 2 == 0) {
    first_stage_rows<1, 2>(a, bottom, position, out);
  } else {
    first_stage_rows<1, 1>(a, bottom, position, out);
  }
}

/// Rows of `channels` summed by one thread at a time.
constexpr int kChannelsPerThread = 8;

/// sums[k] += sum over i of weight[k][i] * in[i], for up to kChannelsPerThread outputs and WIDTH inputs at a time.
template <int WIDTH, typename T>
__device__ __forceinline__ void add_products(const T* weight, int outputs, int inputs, const T* in, int stride,
                                             Vector<T> (&sums)[kChannelsPerThread]) {
  for (int i = 0; i < inputs; i += WIDTH) {
    T w[kChannelsPerThread][WIDTH];
#pragma unroll
    for (int k = 0; k < kChannelsPerThread; ++k) {
      const T* row = weight + static_cast<size_t>(k < outputs ? k : 0) * inputs + i;
      if constexpr (WIDTH == Vector<T>::size) {
        const Vector<T> values = load_vector(row);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) w[k][j] = values.at[j];
      } else {
        w[k][0] = row[0];
      }
    }
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
      const Vector<T> x = load_vector(in + (i + j) * stride);
#pragma unroll
      for (int k = 0; k < kChannelsPerThread; ++k) {
#pragma unroll
        for (int e = 0; e < Vector<T>::size; ++e) sums[k].at[e] += w[k][j] * x.at[e];
      }
    }
  }
}

/// A 1x1 stage: out[destination[o]] = bias[o] + sum over the group's inputs i of weight[o][i] * in[i].
template <typename T>
__device__ __forceinline__ void pointwise_forward(const PointwiseStage<T>& s, const T* in, int pixels,
                                                  const PixelRows<T>& out) {
  constexpr int V = Vector<T>::size;
  const int vectors = pixels / V, parts = ceil_div(s.group_out, kChannelsPerThread);
  const int groups = s.out_channels / s.group_out;
  for (int item = threadIdx.x; item < groups * parts * vectors; item += kThreads) {
    const int p = item % vectors * V, part = item / vectors % parts, group = item / vectors / parts;
    const int first = group * s.group_out + part * kChannelsPerThread;
    const int left = s.group_out - part * kChannelsPerThread;
    const int outputs = left < kChannelsPerThread ? left : kChannelsPerThread;
    const T* weight = s.weight + static_cast<size_t>(first) * s.group_in;
    const T* rows = in + group * s.group_in * pixels + p;
    Vector<T> sums[kChannelsPerThread];
#pragma unroll
    for (int k = 0; k < kChannelsPerThread; ++k) {
      const T bias = s.bias && k < outputs ? s.bias[first + k] : T(0);
#pragma unroll
      for (int e = 0; e < V; ++e) sums[k].at[e] = bias;
    }
    if (s.vectors) {
      add_products<V>(weight, outputs, s.group_in, rows, pixels, sums);
    } else {
      add_products<1>(weight, outputs, s.group_in, rows, pixels, sums);
    }
#pragma unroll
    for (int k = 0; k < kChannelsPerThread; ++k) {
      if (k < outputs) store_pixels(out, s.destination[first + k], p, sums[k]);
    }
  }
}

}  // namespace caffe_layers
