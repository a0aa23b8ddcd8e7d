#pragma once

// Vectors of the instruction set that the including file is compiled for, and loops and sums over them. In an anonymous
// namespace, with C headers only, so that no AVX copy of a shared function exists.

#include <stddef.h>
#include <string.h>

namespace caffe_layers {
namespace {

// Not 64: these passes wait for memory, and a line that is asked for twice, with each half of it, comes sooner (Zen 4:
// 36 instead of 28 GB/s on one core).
#if defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

constexpr int kTile = 4096;  // values summed in T before the sum goes to double

template <typename T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

// In what follows V is a Vector<T>, or T where less than a vector is left.
template <typename V, typename T>
inline V load(const T* p) {
  V v;
  memcpy(&v, p, sizeof(V));
  return v;
}
template <typename V, typename T>
inline void store(T* p, V v) {
  memcpy(p, &v, sizeof(V));
}

/// Begins to fetch a vector into the second-level cache: into the first, too few would be on their way at once.
template <typename V, typename T>
inline void fetch(const T* p) {
  if (sizeof(V) > sizeof(T)) __builtin_prefetch(p, 0, 2);
}

/// Stores past the caches.
inline void stream(float* p, Vector<float> v) {
#if defined(__AVX2__)
  __builtin_ia32_movntps256(p, v);
#elif defined(__x86_64__)
  __builtin_ia32_movntps(p, v);
#else
  store(p, v);
#endif
}
template <typename V, typename T>
inline void stream(T* p, V v) {  // double, which no training uses, and what is left of a vector
  store(p, v);
}

/// Calls f(V(), i) for i = 0 .. n - 1, a vector at a time where possible.
template <typename T, typename F>
inline void for_each(int n, F f) {
  int i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) f(Vector<T>(), i);
  for (; i < n; ++i) f(T(), i);
}

template <typename V>
struct Pair {
  V first, second;
};

/// Two sums of one channel, of type T for about kTile values: on small maps a conversion to double for every image
/// would take longer than the sums. Lanes stay apart as long.
template <typename T>
class Sums {
 public:
  void add(const Vector<T>& first, const Vector<T>& second, int values) {
    first_part_ += first;
    second_part_ += second;
    if ((part_values_ += values) >= kTile) close_part();
  }

  double first() {
    close_part();
    return first_;
  }
  double second() {
    close_part();
    return second_;
  }

 private:
  Vector<T> first_part_ = {}, second_part_ = {};
  double first_ = 0, second_ = 0;
  int part_values_ = 0;

  void close_part() {
    first_ += total(first_part_);
    second_ += total(second_part_);
    first_part_ = second_part_ = Vector<T>();
    part_values_ = 0;
  }

  static double total(const Vector<T>& lanes) {
    double sum = 0;
    for (int k = 0; k < kLanes<T>; ++k) sum += lanes[k];
    return sum;
  }
};

/// Adds the pairs term(V(), i), i = 0 .. n - 1.
template <typename T, typename Term>
inline void add_terms(int n, Term term, Sums<T>* sums) {
  constexpr int kUnroll = 4;  // independent sums hide the latency of an addition
  constexpr int kStep = kUnroll * kLanes<T>;
  for (int begin = 0, end; begin < n; begin = end) {
    end = n - begin > kTile ? begin + kTile : n;
    Vector<T> first[kUnroll] = {}, second[kUnroll] = {};
    int i = begin;
    for (; i + kStep <= end; i += kStep)
#pragma GCC unroll 4
      for (int k = 0; k < kUnroll; ++k) {
        const Pair<Vector<T>> t = term(Vector<T>(), i + k * kLanes<T>);
        first[k] += t.first;
        second[k] += t.second;
      }
    for (; i + kLanes<T> <= end; i += kLanes<T>) {
      const Pair<Vector<T>> t = term(Vector<T>(), i);
      first[0] += t.first;
      second[0] += t.second;
    }
    Vector<T> first_sum = (first[0] + first[1]) + (first[2] + first[3]);
    Vector<T> second_sum = (second[0] + second[1]) + (second[2] + second[3]);
    for (; i < end; ++i) {
      const Pair<T> t = term(T(), i);
      first_sum[0] += t.first;
      second_sum[0] += t.second;
    }
    sums->add(first_sum, second_sum, end - begin);
  }
}

}  // namespace
}  // namespace caffe_layers
