#pragma once

// Parts of vectors where the instruction set has no masks.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

// The first n lanes; the others are zero, and their memory is not touched.
template <typename T>
inline Vector<T> load_first(const T* from, int n) {
  Vector<T> value = {};
  for (int lane = 0; lane < n; ++lane) value[lane] = from[lane];
  return value;
}

template <typename T>
inline void store_first(T* to, Vector<T> value, int n) {
  for (int lane = 0; lane < n; ++lane) to[lane] = value[lane];
}

}  // namespace
}  // namespace caffe_layers
