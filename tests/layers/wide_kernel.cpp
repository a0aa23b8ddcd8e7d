#include "wide_kernel.hpp"

#include "caffe_layers/kernels/cpu.hpp"
#include "caffe_layers/kernels/group_convolution_fused_table.hpp"

namespace {
constexpr int kVectorBytes = 64;
}

#include "caffe_layers/kernels/simd/first_lanes.hpp"

#include "caffe_layers/kernels/simd/chain.hpp"

namespace caffe_layers_test {
namespace {

template <typename T>
caffe_layers::FusedKernel<T> fused_wide() {
  return {caffe_layers::workspace_bytes<T>, caffe_layers::forward<T>, caffe_layers::backward<T>};
}

}  // namespace

template <typename T>
caffe_layers::GroupConvolutionKernel<T> wide_kernel() {
  return caffe_layers::fused_row<T, fused_wide<T>>("512 bits", caffe_layers::any_cpu);
}
template caffe_layers::GroupConvolutionKernel<float> wide_kernel();
template caffe_layers::GroupConvolutionKernel<double> wide_kernel();

}  // namespace caffe_layers_test
