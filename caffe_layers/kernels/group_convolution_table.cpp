#include "caffe_layers/kernels/group_convolution_fused_table.hpp"
#include "caffe_layers/kernels/group_convolution_reference.hpp"

namespace caffe_layers {

template <typename T>
const std::vector<GroupConvolutionKernel<T>>& group_convolution_kernels() {
  static const std::vector<GroupConvolutionKernel<T>> table = [] {
    std::vector<GroupConvolutionKernel<T>> rows = fused_group_convolution_kernels<T>();
    rows.push_back(group_convolution_reference<T>());
    return rows;
  }();
  return table;
}

template <typename T>
const GroupConvolutionKernel<T>& pick_group_convolution_kernel(const GroupConvolutionChain& chain) {
  for (const GroupConvolutionKernel<T>& kernel : group_convolution_kernels<T>()) {
    if (kernel.runs_here() && kernel.supports(chain) && kernel.pays(chain)) return kernel;
  }
  return group_convolution_kernels<T>().back();  // the reference takes every chain
}

template const std::vector<GroupConvolutionKernel<float>>& group_convolution_kernels<float>();
template const std::vector<GroupConvolutionKernel<double>>& group_convolution_kernels<double>();
template const GroupConvolutionKernel<float>& pick_group_convolution_kernel<float>(const GroupConvolutionChain&);
template const GroupConvolutionKernel<double>& pick_group_convolution_kernel<double>(const GroupConvolutionChain&);

}  // namespace caffe_layers
