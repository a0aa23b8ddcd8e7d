#pragma once

// Depthwise 3x3 with stride 1 and a border of one zero, straight from the tensor: the border exists only in registers.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"

namespace caffe_layers {
namespace {

/// Rows of the output computed together: each input row is loaded once for the up to three output rows that need it.
constexpr int kDepthwiseRows = 4;

/// The plane of a channel; `zeros` is a row of zeros as wide, `ahead` the plane that will be read next (a hint to fetch
/// it).
template <typename T>
struct Plane {
  const T* data;
  int height, width;
  const T* zeros;
  const T* ahead;
  const T* row(int y) const { return y < 0 || y >= height ? zeros : data + static_cast<ptrdiff_t>(y) * width; }
};

/// Lane l of the result is lane l - 1 (UP) or l + 1 of x; a zero comes in.
template <typename T, bool UP>
inline Vector<T> shift(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = UP ? (lane ? lane - 1 : kLanes<T>) : lane + 1;
  return __builtin_shuffle(x, Vector<T>{}, from);
}

/// The pixels left of, at and right of a vector of pixels. LEFT: it begins the row; RIGHT: it ends it, `lanes` pixels
/// long.
template <typename T, bool LEFT, bool RIGHT>
inline void load_neighbours(const T* from, int lanes, Vector<T>* x) {
  x[1] = RIGHT ? load_first(from, lanes) : load(from);
  x[0] = LEFT ? shift<T, true>(x[1]) : RIGHT ? load_first(from - 1, lanes) : load(from - 1);
  x[2] = RIGHT ? shift<T, false>(x[1]) : load(from + 1);
}

/// Calls block(LEFT, RIGHT, column, lanes) for each vector of a row; the first two as compile-time constants.
template <bool VALUE>
struct Constant {
  static constexpr bool value = VALUE;
};
template <typename T, typename Block>
inline void for_each_vector(int width, const Block& block) {
  if (width <= kLanes<T>) {
    block(Constant<true>(), Constant<true>(), 0, width);
    return;
  }
  block(Constant<true>(), Constant<false>(), 0, kLanes<T>);
  int column = kLanes<T>;
  for (; column + kLanes<T> < width; column += kLanes<T>)
    block(Constant<false>(), Constant<false>(), column, kLanes<T>);
  block(Constant<false>(), Constant<true>(), column, width - column);
}

template <typename T, int ROWS>
inline void depthwise_rows(const Plane<T>& plane, int y, const Vector<T>* weight, Vector<T> bias, T* out) {
  const T* lines[ROWS + 2];
#pragma GCC unroll 6
  for (int line = 0; line < ROWS + 2; ++line) lines[line] = plane.row(y - 1 + line);
  for_each_vector<T>(plane.width, [&](auto left, auto right, int column, int lanes) {
    Vector<T> sum[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      sum[row] = bias;
      __builtin_prefetch(plane.ahead + static_cast<ptrdiff_t>(y + row) * plane.width + column);
    }
#pragma GCC unroll 6
    for (int line = 0; line < ROWS + 2; ++line) {
      Vector<T> x[3];
      load_neighbours<T, left.value, right.value>(lines[line] + column, lanes, x);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        if (line - row < 0 || line - row > 2) continue;
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx) sum[row] += weight[(line - row) * 3 + kx] * x[kx];
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      T* to = out + static_cast<ptrdiff_t>(row) * plane.width + column;
      if (right.value) {
        store_first(to, sum[row], lanes);
      } else {
        store(to, sum[row]);
      }
    }
  });
}

/// Rows first_row .. first_row + rows - 1 of bias + weight (3x3) * plane. FLIPPED turns the kernel by 180 degrees: the
/// gradient to the input is that of the output, convolved with the flipped kernel.
template <typename T, bool FLIPPED>
void depthwise(const Plane<T>& plane, int first_row, int rows, const T* weight, T bias, T* out) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = broadcast(weight[FLIPPED ? 8 - tap : tap]);
  int row = 0;
  for (; row + kDepthwiseRows <= rows; row += kDepthwiseRows, out += kDepthwiseRows * plane.width) {
    depthwise_rows<T, kDepthwiseRows>(plane, first_row + row, w, broadcast(bias), out);
  }
  for (; row < rows; ++row, out += plane.width) depthwise_rows<T, 1>(plane, first_row + row, w, broadcast(bias), out);
}

template <typename T, int ROWS>
inline void depthwise_gradient_rows(const Plane<T>& plane, int y, const T* out_diff, Vector<T>* sum) {
  const T* lines[ROWS + 2];
#pragma GCC unroll 6
  for (int line = 0; line < ROWS + 2; ++line) lines[line] = plane.row(y - 1 + line);
  for_each_vector<T>(plane.width, [&](auto left, auto right, int column, int lanes) {
    Vector<T> dy[ROWS];
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; ++row) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(row) * plane.width + column;
      __builtin_prefetch(plane.ahead + y * plane.width + at);
      const T* from = out_diff + at;
      dy[row] = right.value ? load_first(from, lanes) : load(from);
    }
#pragma GCC unroll 6
    for (int line = 0; line < ROWS + 2; ++line) {
      Vector<T> x[3];
      load_neighbours<T, left.value, right.value>(lines[line] + column, lanes, x);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        if (line - row < 0 || line - row > 2) continue;
#pragma GCC unroll 3
        for (int kx = 0; kx < 3; ++kx) sum[(line - row) * 3 + kx] += dy[row] * x[kx];
      }
    }
  });
}

/// weight_diff (3x3) += sum over the pixels of out_diff times the shifted plane.
template <typename T>
void depthwise_gradient(const Plane<T>& plane, const T* out_diff, T* weight_diff) {
  Vector<T> sum[9] = {};
  int row = 0;
  for (; row + kDepthwiseRows <= plane.height; row += kDepthwiseRows, out_diff += kDepthwiseRows * plane.width) {
    depthwise_gradient_rows<T, kDepthwiseRows>(plane, row, out_diff, sum);
  }
  for (; row < plane.height; ++row, out_diff += plane.width) depthwise_gradient_rows<T, 1>(plane, row, out_diff, sum);
  T total[9 + kLanes<T>];
  horizontal_sums<T, 9>(sum, total);
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) weight_diff[tap] += total[tap];
}

inline bool is_depthwise_3x3(const FusedStage& stage) {
  return stage.group_inputs == 1 && stage.group_outputs == 1 && stage.kernel == 3 && stage.stride == 1 &&
         stage.dilation == 1 && stage.pad == 1;
}

template <typename T>
inline Plane<T> plane_of(const FusedStage& stage, const Planes<const T>& planes, int channel, const T* zeros) {
  return {planes.at(channel), stage.in_height, stage.in_width, zeros,
          planes.at(smaller(channel + 1, stage.in_channels - 1))};
}

/// As spatial_forward; `zeros` is a row of zeros.
template <typename T>
void depthwise_forward(const FusedStage& stage, const Planes<const T>& in, const T* weight, const T* bias,
                       int first_row, int rows, const Planes<T>& out, const T* zeros) {
  for (int c = 0; c < stage.in_channels; ++c) {
    depthwise<T, false>(plane_of(stage, in, c, zeros), first_row, rows, weight + 9 * c, bias ? bias[c] : T(0),
                        out.at(c));
  }
}

/// weight_diff += and in_diff = the gradients of one image; either may be null.
template <typename T>
void depthwise_backward(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                        const T* weight, T* weight_diff, const Planes<T>& in_diff, const T* zeros) {
  for (int c = 0; c < stage.in_channels; ++c) {
    const Plane<T> dy = plane_of(stage, out_diff, c, zeros);
    if (weight_diff) depthwise_gradient(plane_of(stage, in, c, zeros), dy.data, weight_diff + 9 * c);
    if (in_diff.data) depthwise<T, true>(dy, 0, stage.in_height, weight + 9 * c, T(0), in_diff.at(c));
  }
}

}  // namespace
}  // namespace caffe_layers
