#pragma once

// Depthwise 3x3 with stride 1 or 2 and a border of one zero. A plane is gone through in columns as wide as a vector,
// from top to bottom, with the nine weights in registers: each input row is loaded once and added to the up to three
// output rows that it reaches.

#include "caffe_layers/kernels/simd/window.hpp"

namespace caffe_layers {
namespace {

/// Row y of a plane as the three columns of the kernel meet it.
template <typename T, int STRIDE, typename Edges>
struct Taps {
  Vector<T> x[3];
  ALWAYS_INLINE Taps(const Plane<T>& in, int y, int column, Edges edges) {
    const T* line = in.data + static_cast<ptrdiff_t>(y) * in.width;
    __builtin_prefetch(in.ahead + (line - in.data) + STRIDE * column, 0, 2);
#pragma GCC unroll 3
    for (int kx = 0; kx < 3; ++kx) x[kx] = load_tap<T, STRIDE>(line, in.width, column, kx, edges);
  }
  /// sum + row ky of the kernel times x.
  ALWAYS_INLINE Vector<T> add(Vector<T> sum, const Vector<T>* w, int ky) const {
#pragma GCC unroll 3
    for (int kx = 0; kx < 3; ++kx) sum += w[3 * ky + kx] * x[kx];
    return sum;
  }
};

/// Output rows first_row .. first_row + rows - 1, `width` wide, of bias + weight (3x3) * in. Meanwhile the
/// second-level cache begins to fetch as much from `ahead`; null: nothing.
template <typename T, int STRIDE>
void depthwise(const Plane<T>& in, int first_row, int rows, int width, const T* weight, T bias, T* out,
               const T* ahead) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) w[t] = broadcast(weight[t]);
  for_each_vector<T>(width, [&](auto edges, int column, int) {
    using Row = Taps<T, STRIDE, decltype(edges)>;
    const Vector<T> start = broadcast(bias);
    int y = STRIDE * first_row;
    Vector<T> here = y > 0 ? Row(in, y - 1, column, edges).add(start, w, 0) : start, next = start;
    if (STRIDE == 1) {
      const Row row(in, y, column, edges);
      here = row.add(here, w, 1);
      next = row.add(start, w, 0);
    }
    T* to = out + column;
    for (int left = rows; left > 0; --left, y += STRIDE, to += width) {
      if (STRIDE == 2) here = Row(in, y, column, edges).add(here, w, 1);
      Vector<T> done = here;
      if (y + 1 < in.height) {
        const Row row(in, y + 1, column, edges);
        done = row.add(here, w, 2);
        here = STRIDE == 1 ? row.add(next, w, 1) : row.add(start, w, 0);
        next = row.add(start, w, 0);
      }
      if (STRIDE == 2) done = from_pair_order<T>(done);
      if (ahead) __builtin_prefetch(ahead + (to - out), 0, 2);
      if (edges.narrow) {
        store_first(to, done, width);
      } else {
        store(to, done);
      }
    }
  });
}

}  // namespace
}  // namespace caffe_layers
