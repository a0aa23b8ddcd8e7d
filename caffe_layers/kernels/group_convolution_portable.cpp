#include "caffe_layers/kernels/group_convolution_fused.hpp"

namespace {
constexpr int kVectorBytes = 16;
}

#include "caffe_layers/kernels/simd/first_lanes.hpp"

#include "caffe_layers/kernels/simd/chain.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_portable() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_portable();
template FusedKernel<double> fused_portable();

}  // namespace caffe_layers
