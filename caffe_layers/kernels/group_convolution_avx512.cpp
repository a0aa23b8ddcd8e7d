#if defined(__x86_64__)

#include <immintrin.h>

#include "caffe_layers/kernels/group_convolution_fused.hpp"

namespace caffe_layers {
namespace {

constexpr int kVectorBytes = 64;

// The first n lanes; the others are zero, and their memory is not touched.
inline __m512 load_first(const float* from, int n) { return _mm512_maskz_loadu_ps((1u << n) - 1, from); }
inline __m512d load_first(const double* from, int n) { return _mm512_maskz_loadu_pd((1u << n) - 1, from); }
inline void store_first(float* to, __m512 value, int n) { _mm512_mask_storeu_ps(to, (1u << n) - 1, value); }
inline void store_first(double* to, __m512d value, int n) { _mm512_mask_storeu_pd(to, (1u << n) - 1, value); }

}  // namespace
}  // namespace caffe_layers

#include "caffe_layers/kernels/simd/chain_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_avx512() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_avx512();
template FusedKernel<double> fused_avx512();

template <typename T>
FusedKernel<T> winograd_avx512() {
  return {winograd_workspace_bytes<T>, winograd_forward<T>, winograd_backward<T>};
}
template FusedKernel<float> winograd_avx512();
template FusedKernel<double> winograd_avx512();

}  // namespace caffe_layers

#endif  // defined(__x86_64__)
