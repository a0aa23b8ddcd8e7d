#pragma once

// Depthwise 3x3 with stride 1 or 2 and a border of one zero, straight from the tensor: the border exists only in
// registers.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/lanes.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"

namespace caffe_layers {
namespace {

/// Rows of the output computed together: each input row is loaded once for the up to three output rows that need it.
constexpr int kDepthwiseRows = 4;

/// The plane of a channel; `zeros` is a row of zeros as wide.
template <typename T>
struct Plane {
  const T* data;
  int height, width;
  const T* zeros;
  const T* row(int y) const { return y < 0 || y >= height ? zeros : data + static_cast<ptrdiff_t>(y) * width; }
};

/// The pixels that the three columns of the kernel meet, for `lanes` outputs that begin at `column` of the output row.
/// LEFT: they begin the row; RIGHT: they end it.
template <typename T, int STRIDE, bool LEFT, bool RIGHT>
inline void load_neighbours(const T* line, int width, int column, int lanes, Vector<T>* x) {
  const T* from = line + STRIDE * column;
  if (STRIDE == 1) {
    x[1] = RIGHT ? load_first(from, lanes) : load(from);
    x[0] = LEFT ? shift<T, true>(x[1]) : RIGHT ? load_first(from - 1, lanes) : load(from - 1);
    x[2] = RIGHT ? shift<T, false>(x[1]) : load(from + 1);
  } else {
    const int pixels = width - STRIDE * column;
    const Vector<T> first = RIGHT ? load_first(from, smaller(pixels, kLanes<T>)) : load(from);
    const Vector<T> second = !RIGHT               ? load(from + kLanes<T>)
                             : pixels > kLanes<T> ? load_first(from + kLanes<T>, pixels - kLanes<T>)
                                                  : Vector<T>{};
    x[1] = every_second<T, 0>(first, second);
    x[2] = every_second<T, 1>(first, second);
    x[0] = LEFT ? shift<T, true>(x[2]) : load_even(from - 1, lanes);
  }
}

template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};

/// Calls block(LEFT, RIGHT, column, lanes) for each vector of a row; the first two as compile-time constants.
template <typename T, typename Block>
inline void for_each_vector(int width, const Block& block) {
  if (width <= kLanes<T>) {
    block(Constant<true>(), Constant<true>(), 0, width);
    return;
  }
  block(Constant<true>(), Constant<false>(), 0, kLanes<T>);
  int column = kLanes<T>;
  for (; column + kLanes<T> < width; column += kLanes<T>) {
    block(Constant<false>(), Constant<false>(), column, kLanes<T>);
  }
  block(Constant<false>(), Constant<true>(), column, width - column);
}

/// The input rows that output rows y .. y + ROWS - 1 need.
template <typename T, int STRIDE, int ROWS>
struct Lines {
  static constexpr int kCount = (ROWS - 1) * STRIDE + 3;
  const T* line[kCount];
  Lines(const Plane<T>& plane, int y) {
#pragma GCC unroll 9
    for (int i = 0; i < kCount; ++i) line[i] = plane.row(y * STRIDE - 1 + i);
  }
};

template <typename T, int STRIDE, int ROWS>
inline void depthwise_rows(const Plane<T>& plane, int y, const Vector<T>* weight, Vector<T> bias, T* out, int width) {
  using Input = Lines<T, STRIDE, ROWS>;
  const Input input(plane, y);
  for_each_vector<T>(width, [&](auto left, auto right, int column, int lanes) {
    Vector<T> sum[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) sum[row] = bias;
#pragma GCC unroll 9
    for (int i = 0; i < Input::kCount; ++i) {
      Vector<T> x[3];
      load_neighbours<T, STRIDE, left.value, right.value>(input.line[i], plane.width, column, lanes, x);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        const int ky = i - row * STRIDE;
        if (ky < 0 || ky > 2) continue;
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx) sum[row] += weight[ky * 3 + kx] * x[kx];
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      T* to = out + static_cast<ptrdiff_t>(row) * width + column;
      if (right.value) {
        store_first(to, sum[row], lanes);
      } else {
        store(to, sum[row]);
      }
    }
  });
}

/// Output rows first_row .. first_row + rows - 1, `width` wide, of bias + weight (3x3) * plane. FLIPPED turns the
/// kernel by 180 degrees: with stride 1 that is the way from the output's gradient to the input's.
template <typename T, int STRIDE, bool FLIPPED>
void depthwise(const Plane<T>& plane, int first_row, int rows, int width, const T* weight, T bias, T* out) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = broadcast(weight[FLIPPED ? 8 - tap : tap]);
  int row = 0;
  for (; row + kDepthwiseRows <= rows; row += kDepthwiseRows, out += kDepthwiseRows * width) {
    depthwise_rows<T, STRIDE, kDepthwiseRows>(plane, first_row + row, w, broadcast(bias), out, width);
  }
  for (; row < rows; ++row, out += width) {
    depthwise_rows<T, STRIDE, 1>(plane, first_row + row, w, broadcast(bias), out, width);
  }
}

template <typename T, int STRIDE, int ROWS>
inline void depthwise_gradient_rows(const Plane<T>& plane, int y, const T* out_diff, int width, Vector<T>* sum) {
  using Input = Lines<T, STRIDE, ROWS>;
  const Input input(plane, y);
  for_each_vector<T>(width, [&](auto left, auto right, int column, int lanes) {
    Vector<T> dy[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      const T* from = out_diff + static_cast<ptrdiff_t>(row) * width + column;
      dy[row] = right.value ? load_first(from, lanes) : load(from);
    }
#pragma GCC unroll 9
    for (int i = 0; i < Input::kCount; ++i) {
      Vector<T> x[3];
      load_neighbours<T, STRIDE, left.value, right.value>(input.line[i], plane.width, column, lanes, x);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        const int ky = i - row * STRIDE;
        if (ky < 0 || ky > 2) continue;
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx) sum[ky * 3 + kx] += dy[row] * x[kx];
      }
    }
  });
}

/// weight_diff (3x3) += sum over the output's pixels of out_diff times the shifted plane.
template <typename T, int STRIDE>
void depthwise_gradient(const Plane<T>& plane, const T* out_diff, int height, int width, T* weight_diff) {
  Vector<T> sum[9] = {};
  int row = 0;
  for (; row + kDepthwiseRows <= height; row += kDepthwiseRows, out_diff += kDepthwiseRows * width) {
    depthwise_gradient_rows<T, STRIDE, kDepthwiseRows>(plane, row, out_diff, width, sum);
  }
  for (; row < height; ++row, out_diff += width) {
    depthwise_gradient_rows<T, STRIDE, 1>(plane, row, out_diff, width, sum);
  }
  T total[9 + kLanes<T>];
  horizontal_sums<T, 9>(sum, total);
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) weight_diff[tap] += total[tap];
}

/// Stride 2, from the output's gradient back to an input of height x width. An output pixel (y, x) met the input pixels
/// around (2y, 2x): of these, even rows (columns) met one row (column) of the kernel, odd ones two.
template <typename T>
void depthwise_transposed(const Plane<T>& out_diff, const T* weight, int height, int width, T* in_diff) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = broadcast(weight[tap]);
  for (int y = 0; 2 * y < height; ++y) {
    const T *line = out_diff.row(y), *next = out_diff.row(y + 1);
    T *even = in_diff + static_cast<ptrdiff_t>(2 * y) * width, *odd = even + width;
    for_each_vector<T>(out_diff.width, [&](auto, auto right, int x, int lanes) {
      const Vector<T> a = right.value ? load_first(line + x, lanes) : load(line + x);
      const Vector<T> c = right.value ? load_first(next + x, lanes) : load(next + x);
      const Vector<T> b = right.value ? shift<T, false>(a) : load(line + x + 1);
      const Vector<T> d = right.value ? shift<T, false>(c) : load(next + x + 1);
      const int pixels = smaller(2 * kLanes<T>, width - 2 * x);
      store_interleaved(even + 2 * x, w[4] * a, w[5] * a + w[3] * b, pixels);
      if (2 * y + 1 < height) {
        store_interleaved(odd + 2 * x, w[7] * a + w[1] * c, w[8] * a + w[6] * b + w[2] * c + w[0] * d, pixels);
      }
    });
  }
}

inline bool is_depthwise_3x3(const FusedStage& stage) {
  return stage.group_inputs == 1 && stage.group_outputs == 1 && stage.kernel == 3 && stage.stride <= 2 &&
         stage.dilation == 1 && stage.pad == 1;
}

/// As spatial_forward; `zeros` is a row of zeros.
template <typename T>
void depthwise_forward(const FusedStage& stage, const Planes<const T>& in, const T* weight, const T* bias,
                       int first_row, int rows, const Planes<T>& out, const Finish<T>& finish, const T* zeros) {
  for (int c = 0; c < stage.in_channels; ++c) {
    const Plane<T> plane = {in.at(c), stage.in_height, stage.in_width, zeros};
    const auto run = stage.stride == 1 ? depthwise<T, 1, false> : depthwise<T, 2, false>;
    run(plane, first_row, rows, stage.out_width, weight + 9 * c, bias ? bias[c] : T(0), out.at(c));
    finish_run(finish, out.at(c), static_cast<ptrdiff_t>(rows) * stage.out_width);
  }
}

/// weight_diff += and in_diff = the gradients of one image; either may be null.
template <typename T>
void depthwise_backward(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                        const T* weight, T* weight_diff, const Planes<T>& in_diff, const T* zeros) {
  for (int c = 0; c < stage.in_channels; ++c) {
    const Plane<T> x = {in.at(c), stage.in_height, stage.in_width, zeros};
    const Plane<T> dy = {out_diff.at(c), stage.out_height, stage.out_width, zeros};
    const auto gradient = stage.stride == 1 ? depthwise_gradient<T, 1> : depthwise_gradient<T, 2>;
    if (weight_diff) gradient(x, dy.data, stage.out_height, stage.out_width, weight_diff + 9 * c);
    if (!in_diff.data) continue;
    if (stage.stride == 1) {
      depthwise<T, 1, true>(dy, 0, stage.in_height, stage.in_width, weight + 9 * c, T(0), in_diff.at(c));
    } else {
      depthwise_transposed(dy, weight + 9 * c, stage.in_height, stage.in_width, in_diff.at(c));
    }
  }
}

}  // namespace
}  // namespace caffe_layers
