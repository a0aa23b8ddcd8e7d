#pragma once

// Weights to the factors of the 36 products, and the products' gradients back to weights.

#include "caffe_layers/kernels/simd/multiply_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd_transforms.hpp"

namespace caffe_layers {
namespace {

constexpr int kTaps = 9;
/// Vectors that the taps of a kernel take after they are transposed.
template <typename T>
constexpr int kTapVectors = (kTaps + kLanes<T> - 1) / kLanes<T>* kLanes<T>;

/// Values between one of the 36 matrices and the next: so many that a weight's 36 factors are in different cache sets.
template <typename T>
inline ptrdiff_t matrix_pitch(int inputs, int outputs) {
  return static_cast<ptrdiff_t>(inputs) * outputs + kCacheLine / static_cast<int>(sizeof(T));
}

/// taps[t] = tap t of `lanes` kernels, `stride` apart.
template <typename T>
inline void load_taps(const T* weight, ptrdiff_t stride, int lanes, Vector<T>* taps) {
  for (int t = 0; t < kTaps; t += kLanes<T>) {
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      taps[t + lane] =
          lane < lanes ? load_first(weight + lane * stride + t, smaller(kTaps - t, kLanes<T>)) : Vector<T>{};
    }
    transpose<T>(taps + t);
  }
}

/// The reverse; taps are overwritten.
template <typename T>
inline void store_taps(Vector<T>* taps, int lanes, T* weight) {
  for (int t = 0; t < kTaps; t += kLanes<T>) {
    transpose<T>(taps + t);
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      if (lane < lanes) store_first(weight + lane * kTaps + t, taps[t + lane], smaller(kTaps - t, kLanes<T>));
    }
  }
}

/// One row of all 36 matrices, which are `pitch` apart: G g G^T for `columns` kernels, `stride` apart. TURNED: by 180
/// degrees, for the way from the output's gradient to the input's.
template <typename T, bool TURNED>
void transform_weight_row(const T* weight, ptrdiff_t stride, int columns, T* to, ptrdiff_t pitch) {
  for (int column = 0; column < columns; column += kLanes<T>) {
    const int lanes = smaller(kLanes<T>, columns - column);
    Vector<T> taps[kTapVectors<T>], half[3][kTileInputs];
    load_taps(weight + column * stride, stride, lanes, taps);
#pragma GCC unroll 3
    for (int x = 0; x < 3; ++x) {
      const Vector<T> g[3] = {taps[TURNED ? 8 - x : x], taps[TURNED ? 5 - x : 3 + x], taps[TURNED ? 2 - x : 6 + x]};
      transform_weights<T>(g, half[x]);
    }
#pragma GCC unroll 6
    for (int y = 0; y < kTileInputs; ++y) {
      const Vector<T> g[3] = {half[0][y], half[1][y], half[2][y]};
      Vector<T> u[kTileInputs];
      transform_weights<T>(g, u);
#pragma GCC unroll 6
      for (int x = 0; x < kTileInputs; ++x) store_first(to + (y * kTileInputs + x) * pitch + column, u[x], lanes);
    }
  }
}

/// weight_diff[kernel][9] = G^T dU G for the `kernels` elements of the 36 matrices, which are `pitch` apart.
template <typename T>
void transform_back_weights(const T* product_diff, ptrdiff_t pitch, ptrdiff_t kernels, T* weight_diff) {
  for (ptrdiff_t first = 0; first < kernels; first += kLanes<T>) {
    const int lanes = static_cast<int>(smaller<ptrdiff_t>(kLanes<T>, kernels - first));
    Vector<T> half[kTileInputs][3], taps[kTapVectors<T>] = {};
#pragma GCC unroll 6
    for (int x = 0; x < kTileInputs; ++x) {
      Vector<T> du[kTileInputs];
#pragma GCC unroll 6
      for (int y = 0; y < kTileInputs; ++y) {
        du[y] = load_first(product_diff + (y * kTileInputs + x) * pitch + first, lanes);
      }
      transform_weight_gradient<T>(du, half[x]);
    }
#pragma GCC unroll 3
    for (int y = 0; y < 3; ++y) {
      Vector<T> du[kTileInputs];
#pragma GCC unroll 6
      for (int x = 0; x < kTileInputs; ++x) du[x] = half[x][y];
      transform_weight_gradient<T>(du, taps + 3 * y);
    }
    store_taps(taps, lanes, weight_diff + first * kTaps);
  }
}

}  // namespace
}  // namespace caffe_layers
