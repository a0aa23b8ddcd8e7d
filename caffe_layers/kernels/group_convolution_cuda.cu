#include "caffe_layers/kernels/group_convolution_cuda.hpp"
#include "caffe_layers/kernels/group_convolution_igcv2.cuh"
#include "caffe_layers/kernels/group_convolution_stages.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"
#include "caffe_layers/kernels/permutation.hpp"

namespace caffe_layers {

std::vector<int> channel_tables(const GroupConvolutionChain& chain) {
  std::vector<int> tables = chain.stages.front().input_channel;
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    const bool last = s + 1 == chain.stages.size();
    const std::vector<int> destination =
        invert_permutation(last ? chain.output_channel : chain.stages[s + 1].input_channel);
    tables.insert(tables.end(), destination.begin(), destination.end());
  }
  if (!begins_depthwise(chain)) return tables;
  for (int channel : chain.stages[1].input_channel) tables.push_back(chain.stages[0].input_channel[channel]);
  return tables;
}

bool begins_depthwise(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages.front();
  return chain.stages.size() > 1 && s.group == s.in_channels && s.group == s.out_channels;
}

template <typename T>
const std::vector<CudaGroupConvolutionKernel<T>>& cuda_group_convolution_kernels() {
  static const std::vector<CudaGroupConvolutionKernel<T>> table = {
      group_convolution_igcv2<T>(), group_convolution_tiles<T>(), group_convolution_stages<T>()};
  return table;
}

template <typename T>
const CudaGroupConvolutionKernel<T>& pick_cuda_group_convolution_kernel(const GroupConvolutionChain& chain) {
  for (const CudaGroupConvolutionKernel<T>& kernel : cuda_group_convolution_kernels<T>()) {
    if (kernel.supports(chain)) return kernel;
  }
  return cuda_group_convolution_kernels<T>().back();
}

template const std::vector<CudaGroupConvolutionKernel<float>>& cuda_group_convolution_kernels<float>();
template const std::vector<CudaGroupConvolutionKernel<double>>& cuda_group_convolution_kernels<double>();
template const CudaGroupConvolutionKernel<float>& pick_cuda_group_convolution_kernel<float>(
    const GroupConvolutionChain&);
template const CudaGroupConvolutionKernel<double>& pick_cuda_group_convolution_kernel<double>(
    const GroupConvolutionChain&);

}  // namespace caffe_layers
