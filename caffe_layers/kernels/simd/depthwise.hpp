#pragma once

// Depthwise 3x3 with stride 1, on a plane that already has its border of zeros.

#include "caffe_layers/kernels/simd/multiply.hpp"

namespace caffe_layers {
namespace {

/// Output rows computed together: each row of the input is loaded once for the up to three rows that need it.
constexpr int kDepthwiseRows = 4;

/// ROWS output rows, one vector wide (or its first `lanes`); weight has the nine taps broadcast.
template <typename T, int ROWS, bool WHOLE>
inline void depthwise_block(const T* in, ptrdiff_t in_pitch, const Vector<T>* weight, Vector<T> bias, T* out, ptrdiff_t out_pitch,
                            int lanes) {
  Vector<T> sum[ROWS];
#pragma GCC unroll 4
  for (int row = 0; row < ROWS; ++row) sum[row] = bias;
#pragma GCC unroll 6
  for (int line = 0; line < ROWS + 2; ++line) {
#pragma GCC unroll 3
    for (int shift = 0; shift < 3; ++shift) {
      const Vector<T> x = load(in + line * in_pitch + shift);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        if (line - row >= 0 && line - row < 3) sum[row] += weight[(line - row) * 3 + shift] * x;
      }
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < ROWS; ++row) {
    if (WHOLE) {
      store(out + row * out_pitch, sum[row]);
    } else {
      store_first(out + row * out_pitch, sum[row], lanes);
    }
  }
}

template <typename T, int ROWS>
inline void depthwise_rows(const T* in, ptrdiff_t in_pitch, const Vector<T>* weight, Vector<T> bias, T* out, ptrdiff_t out_pitch,
                           int width) {
  int column = 0;
  for (; column + kLanes<T> <= width; column += kLanes<T>) {
    depthwise_block<T, ROWS, true>(in + column, in_pitch, weight, bias, out + column, out_pitch, 0);
  }
  if (column < width) {
    depthwise_block<T, ROWS, false>(in + column, in_pitch, weight, bias, out + column, out_pitch, width - column);
  }
}

/// out = bias + weight (3x3) * in over the region. FLIPPED turns the kernel by 180 degrees, as the gradient to the input needs it.
template <typename T, bool FLIPPED>
void depthwise(const Region& region, const T* in, const T* weight, T bias, T* out) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int tap = 0; tap < 9; ++tap) w[tap] = broadcast(weight[FLIPPED ? 8 - tap : tap]);
  int row = 0;
  for (; row + kDepthwiseRows <= region.rows; row += kDepthwiseRows) {
    depthwise_rows<T, kDepthwiseRows>(in + row * region.in_pitch, region.in_pitch, w, broadcast(bias), out + row * region.out_pitch,
                                      region.out_pitch, region.width);
  }
  for (; row < region.rows; ++row) {
    depthwise_rows<T, 1>(in + row * region.in_pitch, region.in_pitch, w, broadcast(bias), out + row * region.out_pitch, region.out_pitch,
                         region.width);
  }
}

template <typename T, int ROWS, bool WHOLE>
inline void depthwise_gradient_block(const T* in, ptrdiff_t in_pitch, const T* out_diff, ptrdiff_t out_pitch, int lanes, Vector<T>* sum) {
  Vector<T> dy[ROWS];
#pragma GCC unroll 4
  for (int row = 0; row < ROWS; ++row) {
    dy[row] = WHOLE ? load(out_diff + row * out_pitch) : load_first(out_diff + row * out_pitch, lanes);
  }
#pragma GCC unroll 6
  for (int line = 0; line < ROWS + 2; ++line) {
#pragma GCC unroll 3
    for (int shift = 0; shift < 3; ++shift) {
      const Vector<T> x = load(in + line * in_pitch + shift);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        if (line - row >= 0 && line - row < 3) sum[(line - row) * 3 + shift] += dy[row] * x;
      }
    }
  }
}

/// weight_diff (3x3) += sum over the region of out_diff times the shifted in. What lies right of `in`'s rows must be finite.
template <typename T>
void depthwise_gradient(const Region& region, const T* in, const T* out_diff, T* weight_diff) {
  Vector<T> sum[9] = {};
  const int whole = region.width / kLanes<T> * kLanes<T>, left = region.width - whole;
  int row = 0;
  for (; row + kDepthwiseRows <= region.rows; row += kDepthwiseRows) {
    const T *x = in + row * region.in_pitch, *dy = out_diff + row * region.out_pitch;
    for (int column = 0; column < whole; column += kLanes<T>) {
      depthwise_gradient_block<T, kDepthwiseRows, true>(x + column, region.in_pitch, dy + column, region.out_pitch, 0, sum);
    }
    if (left) depthwise_gradient_block<T, kDepthwiseRows, false>(x + whole, region.in_pitch, dy + whole, region.out_pitch, left, sum);
  }
  for (; row < region.rows; ++row) {
    const T *x = in + row * region.in_pitch, *dy = out_diff + row * region.out_pitch;
    for (int column = 0; column < whole; column += kLanes<T>) {
      depthwise_gradient_block<T, 1, true>(x + column, region.in_pitch, dy + column, region.out_pitch, 0, sum);
    }
    if (left) depthwise_gradient_block<T, 1, false>(x + whole, region.in_pitch, dy + whole, region.out_pitch, left, sum);
  }
  T total[9 + kLanes<T>];
  horizontal_sums<T, 9>(sum, total);
  for (int tap = 0; tap < 9; ++tap) weight_diff[tap] += total[tap];
}

}  // namespace
}  // namespace caffe_layers
