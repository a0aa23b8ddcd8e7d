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
inline void store_first(float* to, __m256 value, int n) { _mm256_maskstore_ps(to, first_lanes(to, n), value); }
inline void store_first(double* to, __m256d value, int n) { _mm256_maskstore_pd(to, first_lanes(to, n), value); }

}  // namespace
}  // namespace caffe_layers

#include "caffe_layers/kernels/simd/chain.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_avx2() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_avx2();
template FusedKernel<double> fused_avx2();

}  // namespace caffe_layers

#endif  // defined(__x86_64__)
