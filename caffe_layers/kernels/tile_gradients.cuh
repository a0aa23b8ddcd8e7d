#pragma once

#include "caffe_layers/kernels/tile_pieces.cuh"

// What only the backward kernel is made of.

namespace caffe_layers {

/// So many neighbouring threads divide the pixels of one sum among them.
constexpr int kSumLanes = 8;
/// They sum for kBlock outputs x kBlock inputs at a time, in registers.
constexpr int kBlock = 4;

/// One block's partial sums: set by its first tile, added to by its others.
template <typename T>
struct PartialSums {
  T* sums;
  bool first_tile;
  __device__ __forceinline__ void add(int entry, T value) const {
    sums[entry] = first_tile ? value : sums[entry] + value;
  }
};

/// Sum over kSumLanes neighbouring threads, in all of them.
template <typename T>
__device__ __forceinline__ T sum_over_lanes(T value) {
#pragma unroll
  for (int mask = kSumLanes / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

/// Sums 16 values over kSumLanes neighbouring threads; lane l keeps sums 2 * l and 2 * l + 1, in values[0] and
/// values[1].
template <typename T>
__device__ __forceinline__ void scatter_sums_over_lanes(T (&values)[2 * kSumLanes]) {
#pragma unroll
  for (int half = kSumLanes; half > 1; half /= 2) {
    const int mask = half / 2;
    const bool upper = threadIdx.x & mask;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const T sent = upper ? values[i] : values[i + half];
      const T kept = upper ? values[i + half] : values[i];
      values[i] = kept + __shfl_xor_sync(kAllLanes, sent, mask);
    }
  }
}

/// Calls visit(item, lane) for items 0 .. count - 1 with kSumLanes threads each. For the shuffles' sake all threads
/// take part to the end: past the last item they get -1.
template <typename Visit>
__device__ __forceinline__ void for_each_sum(int count, Visit visit) {
  constexpr int kItems = kThreads / kSumLanes;
  for (int first = 0; first < count; first += kItems) {
    const int item = first + threadIdx.x / kSumLanes;
    visit(item < count ? item : -1, static_cast<int>(threadIdx.x) % kSumLanes);
  }
}

/// partial weight[o][i] of a 1x1 stage: sum over the tile's pixels of diff[destination[o]] * in[i].
template <typename T>
__device__ void pointwise_weight_sums(const PointwiseStage<T>& s, const T* in, const T* diff, int pixels,
                                      const PartialSums<T>& partial) {
  constexpr int V = Vector<T>::size;
  const int out_blocks = ceil_div(s.group_out, kBlock), in_blocks = ceil_div(s.group_in, kBlock);
  const int groups = s.out_channels / s.group_out;
  for_each_sum(groups * out_blocks * in_blocks, [&](int item, int lane) {
    const int used = item < 0 ? 0 : item;
    const int i0 = used % in_blocks * kBlock, o0 = used / in_blocks % out_blocks * kBlock;
    const int group = used / in_blocks / out_blocks;
    const T *in_row[kBlock], *diff_row[kBlock];
#pragma unroll
    for (int b = 0; b < kBlock; ++b) {  // past the group's end: any row, its sums are dropped
      const int i = i0 + b < s.group_in ? i0 + b : i0, o = o0 + b < s.group_out ? o0 + b : o0;
      in_row[b] = in + (group * s.group_in + i) * pixels;
      diff_row[b] = diff + s.destination[group * s.group_out + o] * pixels;
    }
    T sums[kBlock * kBlock] = {};
    for (int p = item < 0 ? pixels : lane * V; p < pixels; p += kSumLanes * V) {
      Vector<T> x[kBlock], d[kBlock];
#pragma unroll
      for (int b = 0; b < kBlock; ++b) {
        x[b] = load_vector(in_row[b] + p);
        d[b] = load_vector(diff_row[b] + p);
      }
#pragma unroll
      for (int entry = 0; entry < kBlock * kBlock; ++entry) {
#pragma unroll
        for (int e = 0; e < V; ++e) sums[entry] += d[entry / kBlock].at[e] * x[entry % kBlock].at[e];
      }
    }
    scatter_sums_over_lanes(sums);
    if (item < 0) return;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int o = o0 + (2 * lane + k) / kBlock, i = i0 + (2 * lane + k) % kBlock;
      if (o < s.group_out && i < s.group_in) partial.add((group * s.group_out + o) * s.group_in + i, sums[k]);
    }
  });
}

/// partial bias[o]: sum over the tile's pixels of diff[destination[o]].
template <typename T>
__device__ void bias_sums(int channels, const int* destination, const T* diff, int pixels,
                          const PartialSums<T>& partial) {
  for_each_sum(channels, [&](int item, int lane) {
    T sum = 0;
    for (int p = item < 0 ? pixels : lane; p < pixels; p += kSumLanes) sum += diff[destination[item] * pixels + p];
    sum = sum_over_lanes(sum);
    if (item >= 0 && lane == 0) partial.add(item, sum);
  });
}

/// Gradient with respect to a 1x1 stage's input: in_diff[i] = sum over the group's outputs o of weight[o][i] *
/// diff[destination[o]].
template <typename T>
__device__ void pointwise_backward_data(const PointwiseStage<T>& s, const T* diff, int pixels, T* in_diff) {
  constexpr int V = Vector<T>::size;
  const int vectors = pixels / V, parts = ceil_div(s.group_in, kChannelsPerThread);
  const int groups = s.out_channels / s.group_out;
  for (int item = threadIdx.x; item < groups * parts * vectors; item += kThreads) {
    const int p = item % vectors * V, part = item / vectors % parts, group = item / vectors / parts;
    const int first = part * kChannelsPerThread, left = s.group_in - first;
    const int inputs = left < kChannelsPerThread ? left : kChannelsPerThread;
    Vector<T> sums[kChannelsPerThread] = {};
    for (int k = 0; k < s.group_out; ++k) {
      const int o = group * s.group_out + k;
      const T* row = s.weight + static_cast<size_t>(o) * s.group_in + first;
      T w[kChannelsPerThread];
#pragma unroll
      for (int c = 0; c < kChannelsPerThread; c += V) {  // past the group's end: any weights, their sums are dropped
        if (s.vectors) {
          const Vector<T> values = load_vector(row + (c < inputs ? c : 0));
#pragma unroll
          for (int e = 0; e < V; ++e) w[c + e] = values.at[e];
        } else {
#pragma unroll
          for (int e = 0; e < V; ++e) w[c + e] = row[c + e < inputs ? c + e : 0];
        }
      }
      const Vector<T> d = load_vector(diff + s.destination[o] * pixels + p);
#pragma unroll
      for (int c = 0; c < kChannelsPerThread; ++c) {
#pragma unroll
        for (int e = 0; e < V; ++e) sums[c].at[e] += w[c] * d.at[e];
      }
    }
#pragma unroll
    for (int c = 0; c < kChannelsPerThread; ++c) {
      if (c < inputs) store_vector(in_diff + (group * s.group_in + first + c) * pixels + p, sums[c]);
    }
  }
}

/// partial weight[o][i] of a 3x3, pad 1, first stage. The input is read again from global memory, where it is cached.
template <int STRIDE, typename T>
__device__ void first_weight_sums_rows(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                       const T* diff, const PartialSums<T>& partial) {
  constexpr int V = Vector<T>::size, kTaps = 9;
  const StageShape& s = a.first;
  const int columns = s.out_width / V, first_row = position.first_pixel / s.out_width;
  for_each_sum(s.out_channels * s.group_in, [&](int item, int lane) {
    const int o = (item < 0 ? 0 : item) / s.group_in, i = (item < 0 ? 0 : item) % s.group_in;
    const int channel = a.first_tables.source[o / s.group_out * s.group_in + i];
    const size_t index = static_cast<size_t>(position.image) * s.in_channels + channel;
    const T* map = bottom + index * s.in_height * s.in_width;
    const T* diff_row = diff + a.first_tables.destination[o] * a.plan.pixels;
    T sums[2 * kSumLanes] = {};
    for (int p = item < 0 ? a.plan.pixels : lane * V; p < a.plan.pixels; p += kSumLanes * V) {
      const int row = p / V / columns, x = p / V % columns * V;
      const Vector<T> d = load_vector(diff_row + p);
#pragma unroll
      for (int ky = 0; ky < 3; ++ky) {
        T window[STRIDE * (V - 1) + 3];
        load_window<STRIDE>(map, s.in_height, s.in_width, (first_row + row) * STRIDE - 1 + ky, x, window);
#pragma unroll
        for (int kx = 0; kx < 3; ++kx) {
#pragma unroll
          for (int e = 0; e < V; ++e) sums[ky * 3 + kx] += d.at[e] * window[STRIDE * e + kx];
        }
      }
    }
    scatter_sums_over_lanes(sums);
    if (item < 0) return;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (2 * lane + k < kTaps) partial.add(item * kTaps + 2 * lane + k, sums[k]);
    }
  });
}

/// partial weight[o][i][ky][kx] of a first stage of any shape.
template <typename T>
__device__ void first_weight_sums_any(const TileArguments<T>& a, const T* bottom, const TilePosition& position,
                                      const T* diff, const PartialSums<T>& partial) {
  const StageShape& s = a.first;
  const int taps = s.kernel * s.kernel, left = s.out_height * s.out_width - position.first_pixel;
  const int pixels = left < a.plan.pixels ? left : a.plan.pixels;
  for_each_sum(s.out_channels * s.group_in * taps, [&](int item, int lane) {
    T sum = 0;
    if (item >= 0) {
      const int tap = item % taps, i = item / taps % s.group_in, o = item / taps / s.group_in;
      const int channel = a.first_tables.source[o / s.group_out * s.group_in + i];
      const size_t index = static_cast<size_t>(position.image) * s.in_channels + channel;
      const T* map = bottom + index * s.in_height * s.in_width;
      const T* diff_row = diff + a.first_tables.destination[o] * a.plan.pixels;
      for (int p = lane; p < pixels; p += kSumLanes) {
        sum += diff_row[p] * tap_value(s, map, position.first_pixel + p, tap);
      }
    }
    sum = sum_over_lanes(sum);
    if (item >= 0 && lane == 0) partial.add(item, sum);
  });
}

}  // namespace caffe_layers
