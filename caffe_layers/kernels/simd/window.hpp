#pragma once

// What a 3x3 kernel with a border of one zero reads, straight from the tensor: the border exists only in registers.

#include "caffe_layers/kernels/simd/lanes.hpp"

namespace caffe_layers {
namespace {

/// The plane of a channel; `ahead` is one that will be read soon.
template <typename T>
struct Plane {
  const T* data;
  int height, width;
  const T* ahead;
};

/// Where in its row a vector of outputs lies. NARROW: the row is shorter than a vector.
template <bool LEFT, bool RIGHT, bool NARROW>
struct Edges {
  static constexpr bool left = LEFT, right = RIGHT, narrow = NARROW;
};

/// Calls block(edges, column, lanes) for each vector of a row. Only the last `lanes` pixels are new: the last vector
/// ends with the row. (If NARROW, they are the first lanes.)
template <typename T, typename Block>
inline void for_each_vector(int width, const Block& block) {
  if (width < kLanes<T>) return block(Edges<true, true, true>(), 0, width);
  if (width == kLanes<T>) return block(Edges<true, true, false>(), 0, width);
  block(Edges<true, false, false>(), 0, kLanes<T>);
  int column = kLanes<T>;
  for (; column + kLanes<T> < width; column += kLanes<T>) {
    block(Edges<false, false, false>(), column, kLanes<T>);
  }
  block(Edges<false, true, false>(), width - kLanes<T>, width - column);
}

/// The pixels `line[STRIDE * x + kx - 1]` of a row `width` wide for the outputs x = column ... that `edges` describes;
/// if STRIDE is 2, in pair order.
template <typename T, int STRIDE, typename Edges>
ALWAYS_INLINE Vector<T> load_tap(const T* line, int width, int column, int kx, Edges edges) {
  const T* from = line + STRIDE * column;
  if (STRIDE == 1) {
    const int lanes = edges.narrow ? width : kLanes<T>;
    if (kx == 2 && edges.right) return load_first(from + 1, lanes - 1);
    if (kx == 0 && !edges.left) return load(from - 1);
    if (kx == 2) return load(from + 1);
    const Vector<T> middle = edges.narrow ? load_first(from, lanes) : load(from);
    return kx == 0 ? shift<T, true>(middle) : middle;
  }
  if (kx == 0 && !edges.left) return every_second<T, 0>(load(from - 1), load(from - 1 + kLanes<T>));
  const int pixels = width - STRIDE * column;
  const Vector<T> first = edges.narrow ? load_first(from, smaller(pixels, kLanes<T>)) : load(from);
  const Vector<T> second = !edges.right         ? load(from + kLanes<T>)
                           : pixels > kLanes<T> ? load_first(from + kLanes<T>, pixels - kLanes<T>)
                                                : Vector<T>{};
  if (kx == 1) return every_second<T, 0>(first, second);
  const Vector<T> odd = every_second<T, 1>(first, second);
  return kx == 0 ? shift<T, true, true>(odd) : odd;
}

}  // namespace
}  // namespace caffe_layers
