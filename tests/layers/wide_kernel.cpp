#include "wide_kernel.hpp"

#include "caffe_layers/kernels/cpu.hpp"
#include "caffe_layers/kernels/group_convolution_fused_table.hpp"

namespace {
constexpr int kVectorBytes = 64;
}

#include "caffe_layers/kernels/simd/first_lanes.hpp"

#include "caffe_layers/kernels/simd/chain_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd.hpp"

namespace caffe_layers_test {
namespace {

template <typename T>
caffe_layers::FusedKernel<T> fused_wide() {
  return {caffe_layers::workspace_bytes<T>, caffe_layers::forward<T>, caffe_layers::backward<T>};
}

template <typename T>
caffe_layers::FusedKernel<T> winograd_wide() {
  return {caffe_layers::winograd_workspace_bytes<T>, caffe_layers::winograd_forward<T>,
          caffe_layers::winograd_backward<T>};
}

}  // namespace

template <typename T>
std::vector<caffe_layers::GroupConvolutionKernel<T>> wide_kernels() {
  using namespace caffe_layers;
  return {fused_row<T, fused_wide<T>>("512 bits", any_cpu),
          fused_row<T, winograd_wide<T>>("winograd, 512 bits", any_cpu, winograd_supports, winograd_pays)};
}
template std::vector<caffe_layers::GroupConvolutionKernel<float>> wide_kernels();
template std::vector<caffe_layers::GroupConvolutionKernel<double>> wide_kernels();

}  // namespace caffe_layers_test
