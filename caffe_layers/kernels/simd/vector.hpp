#pragma once

// A vector of kVectorBytes (set by the including file) as GCC and Clang know it: +, * and broadcasting work on it as on
// numbers.

#include <cstddef>

#include "caffe_layers/kernels/simd/integers.hpp"
#include "caffe_layers/kernels/streaming.hpp"

// For what is called more than once in an inner loop: a call would put all vectors from registers into memory.
#define ALWAYS_INLINE inline __attribute__((always_inline))

// For inner loops that were slower where the compiler merged them with what calls them.
#define NEVER_INLINE __attribute__((noinline))

// For functions with about as many vectors as there are registers: AVX2's 16 do not hold them once they are inlined.
#if defined(__AVX512F__)
#define OWN_REGISTERS
#else
#define OWN_REGISTERS NEVER_INLINE
#endif

namespace caffe_layers {
namespace {

constexpr int kCacheLine = 64;

template <typename T, int BYTES = kVectorBytes>
struct VectorOf;
template <int BYTES>
struct VectorOf<float, BYTES> {
  typedef float Type __attribute__((vector_size(BYTES)));
  typedef float Unaligned __attribute__((vector_size(BYTES), aligned(sizeof(float)), may_alias));
  typedef int Index __attribute__((vector_size(BYTES)));
};
template <int BYTES>
struct VectorOf<double, BYTES> {
  typedef double Type __attribute__((vector_size(BYTES)));
  typedef double Unaligned __attribute__((vector_size(BYTES), aligned(sizeof(double)), may_alias));
  typedef long long Index __attribute__((vector_size(BYTES)));  // NOLINT: as wide as a double
};

template <typename T>
using Vector = typename VectorOf<T>::Type;
template <typename T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::Unaligned*>(from);
}
template <typename T>
inline void store(T* to, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::Unaligned*>(to) = value;
}

// Stores a vector that is a whole, aligned cache line past the caches: the line need not be read first.
#if defined(__AVX512F__)
inline void stream(float* to, Vector<float> value) { __builtin_ia32_movntps512(to, value); }
inline void stream(double* to, Vector<double> value) { __builtin_ia32_movntpd512(to, value); }
#else
template <typename T>
inline void stream(T* to, Vector<T> value) {
  store(to, value);
}
#endif

/// Whether results go to `tensor`, of `values` values, with stream: it has kStreamedBytes, and the vectors of a run,
/// the values that are written without a gap, are whole lines.
template <typename T>
inline bool is_streamed(const T* tensor, ptrdiff_t values, int run) {
  const ptrdiff_t bytes = values * static_cast<ptrdiff_t>(sizeof(T));
  return kVectorBytes == kCacheLine && bytes >= kStreamedBytes && run % kLanes<T> == 0 &&
         reinterpret_cast<size_t>(tensor) % kCacheLine == 0;
}

template <typename T>
ALWAYS_INLINE void store(T* to, Vector<T> value, bool streamed) {
  if (streamed) {
    stream(to, value);
  } else {
    store(to, value);
  }
}
template <typename T>
inline Vector<T> broadcast(T value) {
  return value - Vector<T>{};
}

/// sum[o][i] = bias[o] for `OUTPUTS` outputs; bias null: zero.
template <typename T, int OUTPUTS, int COUNT>
ALWAYS_INLINE void start_sums(const T* bias, Vector<T> (*sum)[COUNT]) {
#pragma GCC unroll 8
  for (int o = 0; o < OUTPUTS; ++o) {
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; ++i) sum[o][i] = bias ? broadcast(bias[o]) : Vector<T>{};
  }
}

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX__)
constexpr int kRegisterBytes = 32;
#elif defined(__x86_64__)
constexpr int kRegisterBytes = 16;
#else
constexpr int kRegisterBytes = 0;  // unknown
#endif

/// The same value; the compiler may not load it again instead of keeping it.
template <typename T>
inline Vector<T> in_register(Vector<T> value) {
  if constexpr (kVectorBytes <= kRegisterBytes) asm("" : "+v"(value));
  return value;
}

/// Units of UNIT lanes of `a` and `b`, each with the one behind it: first a's sums, then b's, in each run of RUN lanes.
/// Patterns for which there are instructions on all pairs of vectors, whatever their lanes.
template <typename T, int UNIT, int RUN>
ALWAYS_INLINE Vector<T> fold_pair(Vector<T> a, Vector<T> b) {
  typename VectorOf<T>::Index even = {}, odd = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const int in_run = lane % RUN * 2, begin = lane / RUN * RUN;  // place in the run of a, then that of b
    const int source = begin + in_run % RUN / (2 * UNIT) * 2 * UNIT + lane % UNIT + (in_run < RUN ? 0 : kLanes<T>);
    even[lane] = source;
    odd[lane] = source + UNIT;
  }
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

/// Lane l of the result is the sum over the lanes of sums[l]; `sums`, kLanes vectors, is overwritten.
template <typename T, int COUNT = kLanes<T>>
ALWAYS_INLINE Vector<T> reduce(Vector<T>* sums) {
  constexpr int kRun = 16 / static_cast<int>(sizeof(T));  // lanes of 128 bits
  if constexpr (COUNT == 1) {
    return sums[0];
  } else {
#pragma GCC unroll 8
    for (int pair = 0; pair < COUNT / 2; ++pair) {
      sums[pair] = COUNT > kLanes<T> / kRun ? fold_pair<T, 1, kRun>(sums[2 * pair], sums[2 * pair + 1])
                                            : fold_pair<T, kRun, kLanes<T>>(sums[2 * pair], sums[2 * pair + 1]);
    }
    return reduce<T, COUNT / 2>(sums);
  }
}

/// to[i] = sum over the lanes of sums[i]; writes COUNT values rounded up to whole vectors.
template <typename T, int COUNT>
ALWAYS_INLINE void horizontal_sums(const Vector<T>* sums, T* to) {
#pragma GCC unroll 9
  for (int first = 0; first < COUNT; first += kLanes<T>) {
    Vector<T> part[kLanes<T>] = {};
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (first + i < COUNT) part[i] = sums[first + i];
    }
    store(to + first, reduce<T>(part));
  }
}

}  // namespace
}  // namespace caffe_layers
