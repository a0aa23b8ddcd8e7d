#include "caffe_layers/kernels/group_convolution_fused.hpp"

namespace {
constexpr int kVectorBytes = 16;
}

#include "caffe_layers/kernels/simd/first_lanes.hpp"

#include "caffe_layers/kernels/simd/chain_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd.hpp"

namespace caffe_layers {

template <typename T>
FusedKernel<T> fused_portable() {
  return {workspace_bytes<T>, forward<T>, backward<T>};
}
template FusedKernel<float> fused_portable();
template FusedKernel<double> fused_portable();

template <typename T>
FusedKernel<T> winograd_portable() {
  return {winograd_workspace_bytes<T>, winograd_forward<T>, winograd_backward<T>};
}
template FusedKernel<float> winograd_portable();
template FusedKernel<double> winograd_portable();

}  // namespace caffe_layers
