#pragma once

// Winograd's minimal filtering F(4x4, 3x3) in one dimension, after Lavin & Gray 2016, "Fast Algorithms for
// Convolutional Neural Networks": four outputs of a kernel of three from six inputs take six products instead of
// twelve. In two dimensions it acts on columns, then on rows: Y = A^T ((G g G^T) . (B^T x B)) A, 36 products instead of
// 144.
//
// The interpolation points are 0, +-2/3, +-3/2 and infinity. With the usual 0, +-1, +-2 rounding errors are twice as
// large; that the product of the points is 1 saves multiplications.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// Outputs, and inputs or products, of a tile in one dimension.
constexpr int kTileOutputs = 4, kTileInputs = 6, kTileProducts = kTileInputs * kTileInputs;

constexpr double kNear = 2.0 / 3, kFar = 3.0 / 2;
constexpr double kNear2 = kNear * kNear, kFar2 = kFar * kFar;
/// What the weights at +-kNear and +-kFar are divided by.
constexpr double kNearScale = 1 / (2 * kNear2 * (kNear2 - kFar2)), kFarScale = 1 / (2 * kFar2 * (kFar2 - kNear2));

/// v = B^T x
struct InputTransform {
  static constexpr int kFrom = kTileInputs, kBefore = 1;  ///< rows it reads, and how many of them are above the tile
  template <typename T>
  ALWAYS_INLINE static void apply(const Vector<T>* x, Vector<T>* v) {
    v[0] = x[0] + x[4] - T(kNear2 + kFar2) * x[2];
    v[5] = x[1] + x[5] - T(kNear2 + kFar2) * x[3];
    const Vector<T> near_even = x[4] - T(kFar2) * x[2], near_odd = x[3] - T(kFar2) * x[1];
    v[1] = near_even + T(kNear) * near_odd;
    v[2] = near_even - T(kNear) * near_odd;
    const Vector<T> far_even = x[4] - T(kNear2) * x[2], far_odd = x[3] - T(kNear2) * x[1];
    v[3] = far_even + T(kFar) * far_odd;
    v[4] = far_even - T(kFar) * far_odd;
  }
};

/// y = A^T m
template <typename T>
ALWAYS_INLINE void transform_output(const Vector<T>* m, Vector<T>* y) {
  const Vector<T> near_sum = m[1] + m[2], near_difference = m[1] - m[2];
  const Vector<T> far_sum = m[3] + m[4], far_difference = m[3] - m[4];
  y[0] = m[0] + near_sum + far_sum;
  y[1] = T(kNear) * near_difference + T(kFar) * far_difference;
  y[2] = T(kNear2) * near_sum + T(kFar2) * far_sum;
  y[3] = m[5] + T(kNear2 * kNear) * near_difference + T(kFar2 * kFar) * far_difference;
}

/// dm = A dy
struct OutputGradientTransform {
  static constexpr int kFrom = kTileOutputs, kBefore = 0;
  template <typename T>
  ALWAYS_INLINE static void apply(const Vector<T>* dy, Vector<T>* dm) {
    dm[0] = dy[0];
    const Vector<T> near_even = dy[0] + T(kNear2) * dy[2], near_odd = dy[1] + T(kNear2) * dy[3];
    dm[1] = near_even + T(kNear) * near_odd;
    dm[2] = near_even - T(kNear) * near_odd;
    const Vector<T> far_even = dy[0] + T(kFar2) * dy[2], far_odd = dy[1] + T(kFar2) * dy[3];
    dm[3] = far_even + T(kFar) * far_odd;
    dm[4] = far_even - T(kFar) * far_odd;
    dm[5] = dy[3];
  }
};

/// u = G g
template <typename T>
ALWAYS_INLINE void transform_weights(const Vector<T>* g, Vector<T>* u) {
  u[0] = g[0];
  const Vector<T> near_even = T(kNearScale) * g[0] + T(kNearScale * kNear2) * g[2],
                  near_odd = T(kNearScale * kNear) * g[1];
  u[1] = near_even + near_odd;
  u[2] = near_even - near_odd;
  const Vector<T> far_even = T(kFarScale) * g[0] + T(kFarScale * kFar2) * g[2], far_odd = T(kFarScale * kFar) * g[1];
  u[3] = far_even + far_odd;
  u[4] = far_even - far_odd;
  u[5] = g[2];
}

/// dg = G^T du
template <typename T>
ALWAYS_INLINE void transform_weight_gradient(const Vector<T>* du, Vector<T>* dg) {
  const Vector<T> near_sum = T(kNearScale) * (du[1] + du[2]), far_sum = T(kFarScale) * (du[3] + du[4]);
  dg[0] = du[0] + near_sum + far_sum;
  dg[1] = T(kNearScale * kNear) * (du[1] - du[2]) + T(kFarScale * kFar) * (du[3] - du[4]);
  dg[2] = du[5] + T(kNear2) * near_sum + T(kFar2) * far_sum;
}

}  // namespace
}  // namespace caffe_layers
