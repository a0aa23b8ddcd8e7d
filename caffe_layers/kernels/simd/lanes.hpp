#pragma once

// Moving pixels between lanes: shifts by one, and what a stride of 2 needs.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// Lane l of the result is lane l - 1 (UP) or l + 1 of x; a zero comes in.
template <typename T, bool UP>
inline Vector<T> shift(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = UP ? (lane ? lane - 1 : kLanes<T>) : lane + 1;
  return __builtin_shuffle(x, Vector<T>{}, from);
}

/// Lanes FIRST, FIRST + 2, ... of the lanes of a and then b.
template <typename T, int FIRST>
inline Vector<T> every_second(Vector<T> a, Vector<T> b) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = 2 * lane + FIRST;
  return __builtin_shuffle(a, b, from);
}

/// from[0], from[2], ..., `lanes` of them; nothing behind the last is read.
template <typename T>
inline Vector<T> load_even(const T* from, int lanes) {
  typename VectorOf<T>::Index even = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) even[lane] = 2 * lane < kLanes<T> ? 2 * lane : 2 * lane + 1;
  const int pixels = 2 * lanes - 1, first = smaller(pixels, kLanes<T>), second = pixels - (kLanes<T> - 1);
  return __builtin_shuffle(load_first(from, first), second > 0 ? load_first(from + kLanes<T> - 1, second) : Vector<T>{},
                           even);
}

/// a[0], b[0], a[1], b[1], ...: `count` in all.
template <typename T>
inline void store_interleaved(T* to, Vector<T> a, Vector<T> b, int count) {
  typename VectorOf<T>::Index low = {}, high = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    low[lane] = lane / 2 + lane % 2 * kLanes<T>;
    high[lane] = low[lane] + kLanes<T> / 2;
  }
  store_first(to, __builtin_shuffle(a, b, low), smaller(count, kLanes<T>));
  if (count > kLanes<T>) store_first(to + kLanes<T>, __builtin_shuffle(a, b, high), count - kLanes<T>);
}

}  // namespace
}  // namespace caffe_layers
