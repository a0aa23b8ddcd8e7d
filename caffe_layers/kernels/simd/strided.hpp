#pragma once

// 1x1 with stride 2 and two or four channels per branch: the projection shortcuts of IGC-V2 and IGC-V1. Straight from
// the tensor: two vectors of a row, or two rows half as wide, give one vector of every second pixel.

#include "caffe_layers/kernels/simd/direct_gradient.hpp"

namespace caffe_layers {
namespace {

/// 1x1 with stride 2 on even maps of which whole vectors, or pairs of rows, can be made.
template <typename T>
bool takes_every_second(const FusedStage& stage) {
  const int width = stage.out_width, height = stage.out_height;
  const bool even = stage.in_width == 2 * width && stage.in_height == 2 * height;
  const bool vectors = width % kLanes<T> == 0 || (width == kPairWidth<T> && height % 2 == 0);
  return stage.kernel == 1 && stage.stride == 2 && stage.pad == 0 && even && vectors;
}
template <typename T>
bool is_strided(const FusedStage& stage) {
  return takes_every_second<T>(stage) && (stage.group_inputs == 2 || stage.group_inputs == 4);
}

/// Where the pixels of output q, q + 1, ... (row after row) lie in a plane of the input: those of the second half
/// vector begin `second` behind the first's. The row between is `in_width` behind.
template <typename T>
struct Strided {
  int out_width, in_width;
  explicit Strided(const FusedStage& stage) : out_width(stage.out_width), in_width(stage.in_width) {}

  ptrdiff_t first(int q) const {
    return static_cast<ptrdiff_t>(q / out_width) * 2 * in_width + static_cast<ptrdiff_t>(q % out_width) * 2;
  }
  int second() const { return out_width == kPairWidth<T> ? 2 * in_width : kLanes<T>; }

  /// `lanes`: how many of the pixels are wanted, all or the first half.
  ALWAYS_INLINE Vector<T> load_pixels(const T* plane, ptrdiff_t at, int lanes) const {
    const Vector<T> second_half = lanes == kLanes<T> ? load(plane + at + second()) : Vector<T>{};
    return even_pixels<T>(load(plane + at), second_half);
  }
  /// The pixels between get zero.
  ALWAYS_INLINE void store_pixels(T* plane, ptrdiff_t at, Vector<T> value, bool streamed) const {
    const Vector<T> zero = {};
    T* to = plane + at;
    store(to, spread<T, 0>(value), streamed);
    store(to + second(), spread<T, 1>(value), streamed);
    store(to + in_width, zero, streamed);
    store(to + in_width + second(), zero, streamed);
  }
};

/// One group: `rows` rows of its outputs, which begin at first_row. `more`: the lists go on with the next group, whose
/// planes the caches begin to fetch.
template <typename T, int INPUTS>
void strided_group(const Strided<T>& pixels, const T* const* in, int first_row, int rows, int outputs, const T* weight,
                   const T* bias, T* const* out, bool streamed, bool more) {
  const int count = rows * pixels.out_width;
  for (int q = 0; q < count; q += kLanes<T>) {
    const ptrdiff_t at = pixels.first(first_row * pixels.out_width + q);
    const int lanes = smaller(kLanes<T>, count - q);
    Vector<T> x[INPUTS];
#pragma GCC unroll 4
    for (int i = 0; i < INPUTS; ++i) {
      x[i] = pixels.load_pixels(in[i], at, lanes);
      if (!more) continue;
      __builtin_prefetch(in[i + INPUTS] + at);
      __builtin_prefetch(in[i + INPUTS] + at + pixels.second());
    }
    for (int o = 0; o < outputs; ++o) {
      Vector<T> sum = bias ? broadcast(bias[o]) : Vector<T>{};
#pragma GCC unroll 4
      for (int i = 0; i < INPUTS; ++i) sum += broadcast(weight[o * INPUTS + i]) * x[i];
      if (streamed) {
        stream(out[o] + q, sum);
        continue;
      }
      if (more) __builtin_prefetch(out[o + outputs] + q, 1);
      store_first(out[o] + q, sum, lanes);
    }
  }
}

/// The gradients of the weights of BLOCK outputs of a group, `count` pixels each.
template <typename T, int INPUTS, int BLOCK>
void strided_weight_gradient(const Strided<T>& pixels, const T* const* in, int count, const T* const* out_diff,
                             WeightSums<T>* sums) {
  Vector<T> sum[BLOCK * INPUTS] = {};
  for (int q = 0; q < count; q += kLanes<T>) {
    Vector<T> x[INPUTS];
#pragma GCC unroll 4
    for (int i = 0; i < INPUTS; ++i) x[i] = pixels.load_pixels(in[i], pixels.first(q), kLanes<T>);
#pragma GCC unroll 4
    for (int o = 0; o < BLOCK; ++o) {
      const Vector<T> dy = load(out_diff[o] + q);
#pragma GCC unroll 4
      for (int i = 0; i < INPUTS; ++i) sum[o * INPUTS + i] += dy * x[i];
    }
  }
  Vector<T>* place = sums->next(BLOCK * INPUTS);
#pragma GCC unroll 8
  for (int i = 0; i < BLOCK * INPUTS; ++i) place[i] = sum[i];
}

/// The gradient to the input of one group, from `count` pixels of each output's; `more` as above.
template <typename T, int INPUTS>
void strided_input_gradient(const Strided<T>& pixels, int count, int outputs, const T* const* out_diff, const T* weight,
                            T* const* in_diff, bool streamed, bool more) {
  for (int q = 0; q < count; q += kLanes<T>) {
    Vector<T> sum[INPUTS] = {};
    for (int o = 0; o < outputs; ++o) {
      const Vector<T> dy = load(out_diff[o] + q);
      if (more) __builtin_prefetch(out_diff[o + outputs] + q);
#pragma GCC unroll 4
      for (int i = 0; i < INPUTS; ++i) sum[i] += broadcast(weight[o * INPUTS + i]) * dy;
    }
#pragma GCC unroll 4
    for (int i = 0; i < INPUTS; ++i) pixels.store_pixels(in_diff[i], pixels.first(q), sum[i], streamed);
  }
}

/// As spatial_forward, with lists of the planes of all channels.
template <typename T, int INPUTS>
void strided_forward(const FusedStage& stage, const T* const* in, const T* weight, const T* bias, int first_row,
                     int rows, T* const* out, const Finish<T>& finish) {
  const Strided<T> pixels(stage);
  const int outputs = stage.group_outputs;
  const bool streamed = finish.streamed && !finish.any();
  for (int g = 0; g < stage.group; ++g, in += INPUTS, out += outputs) {
    strided_group<T, INPUTS>(pixels, in, first_row, rows, outputs, weight + g * outputs * INPUTS,
                             bias ? bias + g * outputs : nullptr, out, streamed, g + 1 < stage.group);
    for (int o = 0; o < outputs; ++o) {
      finish_run<T>(finish, out[o], out[o], static_cast<ptrdiff_t>(rows) * stage.out_width);
    }
  }
}

/// weight_diff += and in_diff = the gradients of one image; either may be null.
template <typename T, int INPUTS>
void strided_backward(const FusedStage& stage, const T* const* in, const T* const* out_diff, const T* weight,
                      T* weight_diff, T* const* in_diff, bool streamed) {
  constexpr int kBlock = 8 / INPUTS;
  const Strided<T> pixels(stage);
  const int outputs = stage.group_outputs, count = stage.out_height * stage.out_width;
  WeightSums<T> sums(weight_diff);
  for (int g = 0; g < stage.group; ++g, out_diff += outputs) {
    if (in_diff) {
      strided_input_gradient<T, INPUTS>(pixels, count, outputs, out_diff, weight + g * outputs * INPUTS,
                                        in_diff + g * INPUTS, streamed, g + 1 < stage.group);
    }
    if (!weight_diff) continue;
    const T* const* x = in + g * INPUTS;
    int o = 0;
    for (; o + kBlock <= outputs; o += kBlock) {
      strided_weight_gradient<T, INPUTS, kBlock>(pixels, x, count, out_diff + o, &sums);
    }
    for (; o < outputs; ++o) strided_weight_gradient<T, INPUTS, 1>(pixels, x, count, out_diff + o, &sums);
  }
}

}  // namespace
}  // namespace caffe_layers
