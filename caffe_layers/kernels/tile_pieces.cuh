#pragma once

#include "caffe_layers/kernels/spatial_pieces.cuh"
#include "caffe_layers/kernels/tile_rows.cuh"

// What the kernels of both directions are made of. Everything here is done by a whole block together.

namespace caffe_layers {

/// The first stage, 3x3, ROWS output rows per thread.
template <int STRIDE, int ROWS, typename T, typename Rows, int V = Vector<T>::size>
__device__ void first_stage_rows(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                 const Rows& out) {
  const StageShape& s = a.first;
  const unsigned items = s.out_channels * a.plan.row_chunks.divisor * a.plan.columns.divisor;
  const int first_row = position.first_pixel / s.out_width;
  for (unsigned item = threadIdx.x; item < items; item += kThreads) {
    unsigned column = item, chunk = a.plan.columns.divide(&column);
    const unsigned o = a.plan.row_chunks.divide(&chunk);
    const int x = column * V, row = chunk * ROWS;
    const T bias = a.first_bias ? a.first_bias[o] : T(0);
    T sums[ROWS][V];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int e = 0; e < V; ++e) sums[r][e] = bias;
    }
    const int first_in = a.first_group_out.quotient(o) * s.group_in;
    for (int i = 0; i < s.group_in; ++i) {
      const size_t map = static_cast<size_t>(position.image) * s.in_channels + a.first_tables.source[first_in + i];
      convolve_rows<STRIDE, ROWS>(bottom + map * s.in_height * s.in_width, s.in_height, s.in_width, first_row + row, x,
                                  a.first_weight + (static_cast<size_t>(o) * s.group_in + i) * kTaps, false, sums);
    }
    const int channel = a.first_tables.destination[o];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      Vector<T> value;
#pragma unroll
      for (int e = 0; e < V; ++e) value.at[e] = sums[r][e];
      store_pixels(out, channel, (row + r) * s.out_width + x, value);
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
template <typename T, typename Rows>
__device__ void first_stage_any(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                const Rows& out) {
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
    store_pixel(out, a.first_tables.destination[o], p, sum);
  }
}

/// Position in an input map of output pixel p of a 1x1 stage with a stride.
__device__ __forceinline__ int strided_pixel(const StageShape& s, int pixel) {
  return pixel / s.out_width * s.stride * s.in_width + pixel % s.out_width * s.stride;
}

/// The input of a 1x1 first stage, in the order of its channels. Pixels past the map's end are zero.
template <typename T, typename Rows>
__device__ void gather_pixels(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                              const Rows& out) {
  constexpr int V = Vector<T>::size;
  const StageShape& s = a.first;
  const int plane = s.in_height * s.in_width;
  const PlaneRows<const T> in = plane_rows(bottom, s.in_channels, plane, a.plan, position);
  for (unsigned item = threadIdx.x; item < s.in_channels * a.plan.vectors_per_row.divisor; item += kThreads) {
    unsigned p = item;
    const unsigned i = a.plan.vectors_per_row.divide(&p);
    p *= V;
    const int channel = a.first_tables.source[i];
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
template <typename T, typename Rows>
__device__ void first_stage(const TileArguments<T>& a, const T* bottom, const TilePosition& position, const Rows& out) {
  if (a.plan.gather) {
    gather_pixels(a, bottom, position, out);
  } else if (!a.plan.rows) {
    first_stage_any(a, bottom, position, out);
  } else if (a.first.stride == 2) {
    first_stage_rows<2, 1>(a, bottom, position, out);
  } else if (a.plan.rows_per_thread == 4) {
    first_stage_rows<1, 4>(a, bottom, position, out);
  } else if (a.plan.rows_per_thread == 2) {
    first_stage_rows<1, 2>(a, bottom, position, out);
  } else {
    first_stage_rows<1, 1>(a, bottom, position, out);
  }
}

/// sums[k] += sum over i of weight[k][i] * in[first + i], for up to kChannelsPerThread outputs and WIDTH inputs at a
/// time.
template <int WIDTH, typename T>
__device__ __forceinline__ void add_products(const T* weight, int outputs, int inputs, const SharedRows<T>& in,
                                             int first, int pixel, Vector<T> (&sums)[kChannelsPerThread]) {
  unsigned row[kChannelsPerThread];
#pragma unroll
  for (int k = 0; k < kChannelsPerThread; ++k) row[k] = k < outputs ? k * inputs : 0;
  for (int i = 0; i < inputs; i += WIDTH) {
    Vector<T> x[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) x[j] = load_pixels(in, first + i + j, pixel);
#pragma unroll
    for (int k = 0; k < kChannelsPerThread; ++k) {
      const Pack<T, WIDTH> w = load<WIDTH>(weight + (row[k] + i));
#pragma unroll
      for (int j = 0; j < WIDTH; ++j) {
#pragma unroll
        for (int e = 0; e < Vector<T>::size; ++e) sums[k].at[e] += w.at[j] * x[j].at[e];
      }
    }
  }
}

/// Up to kChannelsPerThread channels of one group, from `first` of them on, and a vector of pixels: what a thread
/// computes at a time of a 1x1 stage.
struct ChannelBlock {
  int group, first, channels, pixel;
};
template <int V>
__device__ __forceinline__ ChannelBlock channel_block(unsigned item, const Divisor& vectors_per_row,
                                                      const Divisor& parts, int group_channels) {
  unsigned pixel = item, part = vectors_per_row.divide(&pixel);
  const unsigned group = parts.divide(&part);
  const int first = part * kChannelsPerThread, left = group_channels - first;
  return {static_cast<int>(group), first, left < kChannelsPerThread ? left : kChannelsPerThread,
          static_cast<int>(pixel) * V};
}

template <typename T>
__device__ __forceinline__ void add_bias(const T* bias, int channels, Vector<T> (&sums)[kChannelsPerThread]) {
#pragma unroll
  for (int k = 0; k < kChannelsPerThread; ++k) {
    const T value = k < channels ? bias[k] : T(0);
#pragma unroll
    for (int e = 0; e < Vector<T>::size; ++e) sums[k].at[e] += value;
  }
}

/// A 1x1 stage: out[destination[o]] = bias[o] + sum over the group's inputs i of weight[o][i] * in[i].
template <typename T, typename Rows>
__device__ __forceinline__ void pointwise_forward(const PointwiseStage<T>& s, const TilePlan& plan,
                                                  const SharedRows<T>& in, const Rows& out) {
  constexpr int V = Vector<T>::size;
  const unsigned items = s.groups * s.out_parts.divisor * plan.vectors_per_row.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kThreads) {
    const ChannelBlock b = channel_block<V>(item, plan.vectors_per_row, s.out_parts, s.group_out);
    const int first = b.group * s.group_out + b.first;
    const T* weight = s.weight + static_cast<size_t>(first) * s.group_in;
    Vector<T> sums[kChannelsPerThread] = {};
    if (s.bias) add_bias(s.bias + first, b.channels, sums);
    if (s.vector_weights) {
      add_products<V>(weight, b.channels, s.group_in, in, b.group * s.group_in, b.pixel, sums);
    } else {
      add_products<1>(weight, b.channels, s.group_in, in, b.group * s.group_in, b.pixel, sums);
    }
#pragma unroll
    for (int k = 0; k < kChannelsPerThread; ++k) {
      if (k < b.channels) store_pixels(out, s.destination[first + k], b.pixel, sums[k]);
    }
  }
}

/// w[c] = weight[c] for c < channels; past them any weights.
template <typename T>
__device__ __forceinline__ void load_weights(const T* weight, bool vectors, int channels, T (&w)[kChannelsPerThread]) {
  constexpr int V = Vector<T>::size;
  if (vectors) {
#pragma unroll
    for (int c = 0; c < kChannelsPerThread; c += V) {
      const Vector<T> values = load_vector(weight + (c < channels ? c : 0));
#pragma unroll
      for (int e = 0; e < V; ++e) w[c + e] = values.at[e];
    }
  } else {
#pragma unroll
    for (int c = 0; c < kChannelsPerThread; ++c) w[c] = weight[c < channels ? c : 0];
  }
}

/// Gradient with respect to a 1x1 stage's input: in_diff[i] = sum over the group's outputs o of weight[o][i] *
/// diff[destination[o]]. Channel i goes to row order[i] of `out`, to row i if `order` is null.
template <typename T, typename InRows, typename OutRows>
__device__ __forceinline__ void pointwise_backward_data(const PointwiseStage<T>& s, const TilePlan& plan,
                                                        const InRows& diff, const int* order, const OutRows& out) {
  constexpr int V = Vector<T>::size;
  const unsigned items = s.groups * s.in_parts.divisor * plan.vectors_per_row.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kThreads) {
    const ChannelBlock b = channel_block<V>(item, plan.vectors_per_row, s.in_parts, s.group_in);
    const int first_out = b.group * s.group_out;
    const T* weight = s.weight + static_cast<size_t>(first_out) * s.group_in + b.first;
    Vector<T> sums[kChannelsPerThread] = {};
#pragma unroll 2
    for (int k = 0; k < s.group_out; ++k) {
      T w[kChannelsPerThread];
      load_weights(weight + static_cast<size_t>(k) * s.group_in, s.vector_weights, b.channels, w);
      const Vector<T> d = load_pixels(diff, s.destination[first_out + k], b.pixel);
#pragma unroll
      for (int c = 0; c < kChannelsPerThread; ++c) {
#pragma unroll
        for (int e = 0; e < V; ++e) sums[c].at[e] += w[c] * d.at[e];
      }
    }
#pragma unroll
    for (int c = 0; c < kChannelsPerThread; ++c) {
      if (c >= b.channels) continue;
      const int i = b.group * s.group_in + b.first + c;
      store_pixels(out, order ? order[i] : i, b.pixel, sums[c]);
    }
  }
}

}  // namespace caffe_layers
