#pragma once

// Depthwise 3x3 with stride 1 or 2 and a border of one zero. A plane is gone through in columns as wide as a vector,
// from top to bottom, with the nine weights in registers: each input row is loaded once and added to the up to three
// output rows that it reaches.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"
#include "caffe_layers/kernels/simd/window.hpp"

namespace caffe_layers {
namespace {

/// Packed weights come column of the kernel after column; in each, the rows in the order of kernel_row: those that meet
/// even rows of the input first.
template <int STRIDE>
constexpr int kernel_row(int i) {
  return STRIDE == 1 ? i : i == 0 ? 0 : 3 - i;
}

/// Row y of a plane as the three columns of the kernel meet it.
template <typename T, int STRIDE, typename Edges>
struct Taps {
  Vector<T> x[3];
  ALWAYS_INLINE Taps(const Plane<T>& in, int y, int column, Edges edges) {
    const T* line = in.data + static_cast<ptrdiff_t>(y) * in.width;
    __builtin_prefetch(in.ahead + (line - in.data) + STRIDE * column);
#pragma GCC unroll 3
    for (int kx = 0; kx < 3; ++kx) x[kx] = load_tap<T, STRIDE>(line, in.width, column, kx, edges);
  }
  /// sum + row ky of the kernel times x.
  ALWAYS_INLINE Vector<T> add(Vector<T> sum, const Vector<T>* w, int ky) const {
#pragma GCC unroll 3
    for (int kx = 0; kx < 3; ++kx) sum += w[3 * kx + kernel_row<STRIDE>(ky)] * x[kx];
    return sum;
  }
};

/// Output rows first_row .. first_row + rows - 1, `width` wide, of bias + weight (3x3, packed) * in.
template <typename T, int STRIDE>
void depthwise(const Plane<T>& in, int first_row, int rows, int width, const T* packed, T bias, T* out) {
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) w[t] = broadcast(packed[t]);
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
      if (edges.narrow) {
        store_first(to, done, width);
      } else {
        store(to, done);
      }
    }
  });
}

/// As spatial_forward, with weights from pack_direct.
template <typename T>
void depthwise_forward(const FusedStage& stage, const Planes<const T>& in, const T* packed, const T* bias,
                       int first_row, int rows, const Planes<T>& out, const Finish<T>& finish) {
  for (int c = 0; c < stage.in_channels; ++c) {
    const Plane<T> plane = {in.at(c), stage.in_height, stage.in_width, in.at(smaller(c + 1, stage.in_channels - 1))};
    const auto run = stage.stride == 1 ? depthwise<T, 1> : depthwise<T, 2>;
    run(plane, first_row, rows, stage.out_width, packed + 9 * c, bias ? bias[c] : T(0), out.at(c));
    finish_run(finish, out.at(c), static_cast<ptrdiff_t>(rows) * stage.out_width);
  }
}

}  // namespace
}  // namespace caffe_layers
