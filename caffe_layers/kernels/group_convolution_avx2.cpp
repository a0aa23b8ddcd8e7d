#if defined(__x86_64__)

#include <immintrin.h>

#include "caffe_layers/kernels/group_convolution_fused.hpp"

namespace caffe_layers {
namespace {

constexpr int kVectorBytes = 32;

inline __m256i first_lanes(int n, __m256i lane) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane); }
inline __m256i first_lanes(const float*, int n) { return first_lanes(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
inline __m256i first_lanes(const double*, int n) { return first_lanes(n, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)); }

// The first n lanes; the others are zero, and their memory is not touched.
inline __m256 load_first(const float* from, int n) { return _mm256_maskload_ps(from, first_lanes(from, n)); }
inline __m256d load_first(const double* from, int n) { return _mm256_maskload_pd(from, first_lanes(from, n)); }

// In pieces, without a mask: AMD's processors take some 40 cycles for a masked store.
inline void store_first(float* to, __m256 value, int n) {
  if (n == 8) return _mm256_storeu_ps(to, value);
  __m128 piece = _mm256_castps256_ps128(value);
  if (n & 4) {
    _mm_storeu_ps(to, piece);
    piece = _mm256_extractf128_ps(value, 1);
    to += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(to), piece);
    piece = _mm_movehl_ps(piece, piece);
    to += 2;
  }
  if (n & 1) _mm_store_ss(to, piece);
}
inline void store_first(double* to, __m256d value, int n) {
  if (n == 4) return _mm256_storeu_pd(to, value);
  __m128d piece = _mm256_castpd256_pd128(value);
  if (n & 2) {
    _mm_storeu_pd(to, piece);
    piece = _mm256_extractf128_pd(value, 1);
    to += 2;
  }
  if (n & 1) _mm_store_sd(to, piece);
}

}  // namespace
}  // namespace caffe_layers

#include "caffe_layers/kernels/simd/chain_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_avx2() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_avx2();
template FusedKernel<double> fused_avx2();

template <typename T>
FusedKernel<T> winograd_avx2() {
  return {winograd_workspace_bytes<T>, winograd_forward<T>, winograd_backward<T>};
}
template FusedKernel<float> winograd_avx2();
template FusedKernel<double> winograd_avx2();

}  // namespace caffe_layers

#endif  // defined(__x86_64__)
