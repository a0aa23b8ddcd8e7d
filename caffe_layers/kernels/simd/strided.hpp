#pragma once

// 1x1 with stride 2 and few inputs per group: the projection shortcuts of the paper's networks. Straight from the
// tensor: two vectors of a row, or two rows half as wide, give one vector of every second pixel.

#include "caffe_layers/kernels/simd/direct_gradient.hpp"

namespace caffe_layers {
namespace {

/// On even maps of which whole vectors, or pairs of rows, can be made.
template <typename T>
bool is_strided(const FusedStage& stage) {
  const int inputs = stage.group_inputs, width = stage.out_width;
  const bool pairs = width == kPairWidth<T> && stage.out_height % 2 == 0;
  return stage.kernel == 1 && stage.stride == 2 && stage.pad == 0 && (inputs == 1 || inputs == 2 || inputs == 4) &&
         stage.in_width == 2 * width && stage.in_height == 2 * stage.out_height && (width % kLanes<T> == 0 || pairs);
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
    const Vector<T> a = load(plane + at);
    const Vector<T> b = lanes == kLanes<T> ? load(plane + at + second()) : Vector<T>{};
    typename VectorOf<T>::Index even = {};
    for (int lane = 0; lane < kLanes<T>; ++lane) even[lane] = 2 * lane;
    return __builtin_shuffle(a, b, even);
  }
  /// The pixels between get zero.
  ALWAYS_INLINE void store_pixels(T* plane, ptrdiff_t at, Vector<T> value) const {
    typename VectorOf<T>::Index low = {}, high = {};
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      low[lane] = lane % 2 ? kLanes<T> : lane / 2;
      high[lane] = lane % 2 ? kLanes<T> : (lane + kLanes<T>) / 2;
    }
    const Vector<T> zero = {};
    T* to = plane + at;
    store(to, __builtin_shuffle(value, zero, low));
    store(to + second(), __builtin_shuffle(value, zero, high));
    store(to + in_width, zero);
    store(to + in_width + second(), zero);
  }
};

/// One group: `rows` rows of its outputs, which begin at first_row. What comes next is fetched from in[i + INPUTS] and
/// will be written to out[o + outputs].
template <typename T, int INPUTS>
void strided_group(const Strided<T>& pixels, const T* const* in, int first_row, int rows, int outputs, const T* weight,
                   const T* bias, T* const* out, bool more) {
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
      if (more) __builtin_prefetch(out[o + outputs] + q, 1);
      store_first(out[o] + q, sum, lanes);
    }
  }
}

/// sum[o][i] of BLOCK outputs.
template <typename T, int INPUTS, int BLOCK>
void strided_weight_gradient(const Strided<T>& pixels, const T* const* in, int count, const T* const* out_diff,
                             WeightSums<T>* sums) {
  Vector<T> sum[BLOCK * INPUTS] = {};
  for (int q = 0; q < count; q += kLanes<T>) {
    const ptrdiff_t at = pixels.first(q);
    Vector<T> x[INPUTS];
#pragma GCC unroll 4
    for (int i = 0; i < INPUTS; ++i) x[i] = pixels.load_pixels(in[i], at, kLanes<T>);
#pragma GCC unroll 8
    for (int o = 0; o < BLOCK; ++o) {
      const Vector<T> dy = load(out_diff[o] + q);
#pragma GCC unroll 4
      for (int i = 0; i < INPUTS; ++i) sum[o * INPUTS + i] += dy * x[i];
    }
  }
  sums->template add<BLOCK * INPUTS>(sum);
}

template <typename T, int INPUTS>
void strided_input_gradient(const Strided<T>& pixels, int count, int outputs, const T* const* out_diff, const T* weight,
                            T* const* in_diff, bool more) {
  for (int q = 0; q < count; q += kLanes<T>) {
    const ptrdiff_t at = pixels.first(q);
    Vector<T> sum[INPUTS] = {};
    for (int o = 0; o < outputs; ++o) {
      const Vector<T> dy = load(out_diff[o] + q);
      if (more) __builtin_prefetch(out_diff[o + outputs] + q);
#pragma GCC unroll 4
      for (int i = 0; i < INPUTS; ++i) sum[i] += broadcast(weight[o * INPUTS + i]) * dy;
    }
#pragma GCC unroll 4
    for (int i = 0; i < INPUTS; ++i) pixels.store_pixels(in_diff[i], at, sum[i]);
  }
}

template <typename T, int INPUTS>
void strided_groups(const FusedStage& stage, const T* const* in, const T* weight, const T* bias, int first_row,
                    int rows, T* const* out, const Finish<T>& finish) {
  const Strided<T> pixels(stage);
  const int outputs = stage.group_outputs;
  for (int g = 0; g < stage.group; ++g, in += INPUTS, out += outputs, weight += outputs * INPUTS) {
    strided_group<T, INPUTS>(pixels, in, first_row, rows, outputs, weight, bias ? bias + g * outputs : nullptr, out,
                             g + 1 < stage.group);
    for (int o = 0; o < outputs; ++o) finish_run(finish, out[o], static_cast<ptrdiff_t>(rows) * stage.out_width);
  }
}

template <typename T, int INPUTS>
void strided_group_gradients(const FusedStage& stage, const T* const* in, const T* const* out_diff, const T* weight,
                             T* weight_diff, T* const* in_diff) {
  const Strided<T> pixels(stage);
  const int outputs = stage.group_outputs, count = stage.out_height * stage.out_width;
  WeightSums<T> sums(weight_diff);
  for (int g = 0; g < stage.group; ++g, out_diff += outputs, weight += outputs * INPUTS) {
    if (in_diff) {
      strided_input_gradient<T, INPUTS>(pixels, count, outputs, out_diff, weight, in_diff + g * INPUTS,
                                        g + 1 < stage.group);
    }
    const T* const* x = in + g * INPUTS;
    constexpr int kBlock = 8 / INPUTS;
    int o = weight_diff ? 0 : outputs;
    for (; o + kBlock <= outputs; o += kBlock) {
      strided_weight_gradient<T, INPUTS, kBlock>(pixels, x, count, out_diff + o, &sums);
    }
    for (; o < outputs; ++o) strided_weight_gradient<T, INPUTS, 1>(pixels, x, count, out_diff + o, &sums);
  }
}

/// As spatial_forward, with lists of planes.
template <typename T>
void strided_forward(const FusedStage& stage, const T* const* in, const T* weight, const T* bias, int first_row,
                     int rows, T* const* out, const Finish<T>& finish) {
  const auto run = stage.group_inputs == 1   ? strided_groups<T, 1>
                   : stage.group_inputs == 2 ? strided_groups<T, 2>
                                             : strided_groups<T, 4>;
  run(stage, in, weight, bias, first_row, rows, out, finish);
}

/// weight_diff += and in_diff = the gradients of one image; either may be null.
template <typename T>
void strided_backward(const FusedStage& stage, const T* const* in, const T* const* out_diff, const T* weight,
                      T* weight_diff, T* const* in_diff) {
  const auto run = stage.group_inputs == 1   ? strided_group_gradients<T, 1>
                   : stage.group_inputs == 2 ? strided_group_gradients<T, 2>
                                             : strided_group_gradients<T, 4>;
  run(stage, in, out_diff, weight, weight_diff, in_diff);
}

}  // namespace
}  // namespace caffe_layers
