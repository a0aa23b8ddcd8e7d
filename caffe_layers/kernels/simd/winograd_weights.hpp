#pragma once

// Weights to the factors of the 36 products, and the products' gradients back to weights.

#include "caffe_layers/kernels/simd/winograd_transforms.hpp"

namespace caffe_layers {
namespace {

/// One row of all 36 matrices, which are `pitch` apart: to[36][column] = G g G^T for `columns` kernels, `stride` apart.
/// TURNED: by 180 degrees, for the way from the output's gradient to the input's.
template <typename T, bool TURNED>
void transform_weight_row(const T* weight, ptrdiff_t stride, int columns, T* to, ptrdiff_t pitch) {
  for (int column = 0; column < columns; column += kLanes<T>) {
    const int lanes = smaller(kLanes<T>, columns - column);
    alignas(kCacheLine) T taps[9][kLanes<T>] = {};
    for (int lane = 0; lane < lanes; ++lane) {
      for (int t = 0; t < 9; ++t) taps[t][lane] = weight[(column + lane) * stride + (TURNED ? 8 - t : t)];
    }
    Vector<T> half[3][kTileInputs];
#pragma GCC unroll 3
    for (int x = 0; x < 3; ++x) {
      const Vector<T> g[3] = {load(taps[x]), load(taps[3 + x]), load(taps[6 + x])};
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

/// weight_diff[output][input][9] = G^T dU G for the 36 matrices at product_diff.
template <typename T>
void transform_back_weights(const T* product_diff, int inputs, int outputs, T* weight_diff) {
  const ptrdiff_t pitch = static_cast<ptrdiff_t>(inputs) * outputs;
  for (ptrdiff_t first = 0; first < pitch; first += kLanes<T>) {
    const int lanes = static_cast<int>(smaller<ptrdiff_t>(kLanes<T>, pitch - first));
    Vector<T> half[kTileInputs][3];
#pragma GCC unroll 6
    for (int x = 0; x < kTileInputs; ++x) {
      Vector<T> du[kTileInputs];
#pragma GCC unroll 6
      for (int y = 0; y < kTileInputs; ++y) {
        du[y] = load_first(product_diff + (y * kTileInputs + x) * pitch + first, lanes);
      }
      transform_weight_gradient<T>(du, half[x]);
    }
    alignas(kCacheLine) T taps[9][kLanes<T>];
#pragma GCC unroll 3
    for (int y = 0; y < 3; ++y) {
      Vector<T> du[kTileInputs], dg[3];
#pragma GCC unroll 6
      for (int x = 0; x < kTileInputs; ++x) du[x] = half[x][y];
      transform_weight_gradient<T>(du, dg);
#pragma GCC unroll 3
      for (int x = 0; x < 3; ++x) store(taps[3 * y + x], dg[x]);
    }
    for (int lane = 0; lane < lanes; ++lane) {
      for (int t = 0; t < 9; ++t) weight_diff[(first + lane) * 9 + t] = taps[t][lane];
    }
  }
}

}  // namespace
}  // namespace caffe_layers
