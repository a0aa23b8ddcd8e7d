#include "caffe_layers/kernels/group_convolution_fused.hpp"

namespace {
constexpr int kVectorBytes = 16;
}

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

#include "caffe_layers/kernels/simd/chain.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_portable() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_portable();
template FusedKernel<double> fused_portable();

}  // namespace caffe_layers
