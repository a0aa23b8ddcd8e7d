#pragma once

// Moving pixels between lanes: shifts by one, and what a stride of 2 needs.
//
// With a stride of 2 vectors are kept in an order of their own, pair order, in which splitting into even and odd pixels
// and joining them again stay within 128 bits: one instruction each, and the order is put right once per result.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// Which lane of a vector in pair order holds pixel `pixel`.
template <typename T>
constexpr int pair_lane(int pixel) {
  const int half = 8 / static_cast<int>(sizeof(T)), first = kLanes<T> / 2;  // half of 128 bits, of a vector
  return pixel < first ? pixel / half * 2 * half + pixel % half : pair_lane<T>(pixel - first) + half;
}

template <typename T>
inline Vector<T> to_pair_order(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int pixel = 0; pixel < kLanes<T>; ++pixel) from[pair_lane<T>(pixel)] = pixel;
  return __builtin_shuffle(x, from);
}
template <typename T>
inline Vector<T> from_pair_order(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int pixel = 0; pixel < kLanes<T>; ++pixel) from[pixel] = pair_lane<T>(pixel);
  return __builtin_shuffle(x, from);
}

/// Pixel p of the result is pixel p - 1 (UP) or p + 1 of x; a zero comes in. PAIRS: both are in pair order.
template <typename T, bool UP, bool PAIRS = false>
inline Vector<T> shift(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int pixel = 0; pixel < kLanes<T>; ++pixel) {
    const int source = UP ? pixel - 1 : pixel + 1;
    const int lane = source < 0 || source == kLanes<T> ? kLanes<T> : PAIRS ? pair_lane<T>(source) : source;
    from[PAIRS ? pair_lane<T>(pixel) : pixel] = lane;
  }
  return __builtin_shuffle(x, Vector<T>{}, from);
}

/// Pixels FIRST, FIRST + 2, ... of those of a and then b: in pair order if PAIRS, else in their own, which is one
/// instruction only where there is AVX-512.
template <typename T, int FIRST, bool PAIRS = true>
inline Vector<T> every_second(Vector<T> a, Vector<T> b) {
  typename VectorOf<T>::Index from = {};
  for (int pixel = 0; pixel < kLanes<T>; ++pixel) from[PAIRS ? pair_lane<T>(pixel) : pixel] = 2 * pixel + FIRST;
  return __builtin_shuffle(a, b, from);
}
template <typename T>
inline Vector<T> even_pixels(Vector<T> a, Vector<T> b) {
  return every_second<T, 0, false>(a, b);
}
template <typename T>
inline Vector<T> odd_pixels(Vector<T> a, Vector<T> b) {
  return every_second<T, 1, false>(a, b);
}

/// The first (HALF 0) or second (1) kLanes of even[0], odd[0], even[1], odd[1], ...; `even` and `odd` are in pair
/// order.
template <typename T, int HALF>
inline Vector<T> interleave(Vector<T> even, Vector<T> odd) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const int pixel = (HALF * kLanes<T> + lane) / 2;
    from[lane] = pair_lane<T>(pixel) + lane % 2 * kLanes<T>;
  }
  return __builtin_shuffle(even, odd, from);
}

/// The first (HALF 0) or second (1) kLanes of x[0], 0, x[1], 0, ...
template <typename T, int HALF>
inline Vector<T> spread(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = lane % 2 ? kLanes<T> : (HALF * kLanes<T> + lane) / 2;
  return __builtin_shuffle(x, Vector<T>{}, from);
}

/// The first half of a and that of b.
template <typename T>
inline Vector<T> join_halves(Vector<T> a, Vector<T> b) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = lane < kLanes<T> / 2 ? lane : lane + kLanes<T> / 2;
  return __builtin_shuffle(a, b, from);
}
template <typename T>
inline Vector<T> swap_halves(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = (lane + kLanes<T> / 2) % kLanes<T>;
  return __builtin_shuffle(x, from);
}

/// from[0], from[2], ..., `lanes` of them; nothing behind the last is read.
template <typename T>
inline Vector<T> load_even(const T* from, int lanes) {
  const int pixels = 2 * lanes - 1;
  const Vector<T> second = pixels > kLanes<T> ? load_first(from + kLanes<T>, pixels - kLanes<T>) : Vector<T>{};
  return even_pixels<T>(load_first(from, smaller(pixels, kLanes<T>)), second);
}

/// even[0], odd[0], even[1], odd[1], ...: `count` in all; `even` and `odd` in pair order. `streamed`: whole vectors to
/// aligned places past the caches.
template <typename T>
inline void store_interleaved(T* to, Vector<T> even, Vector<T> odd, int count, bool streamed = false) {
  if (streamed && count == 2 * kLanes<T>) {
    stream(to, interleave<T, 0>(even, odd));
    stream(to + kLanes<T>, interleave<T, 1>(even, odd));
    return;
  }
  store_first(to, interleave<T, 0>(even, odd), smaller(count, kLanes<T>));
  if (count > kLanes<T>) store_first(to + kLanes<T>, interleave<T, 1>(even, odd), count - kLanes<T>);
}

}  // namespace
}  // namespace caffe_layers
