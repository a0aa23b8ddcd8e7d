#include <algorithm>

#include "caffe_layers/fused_group_convolution_layer.hpp"
#include "caffe_layers/kernels/group_convolution_cuda.hpp"
#include "caffe_layers/kernels/workspace_cuda.hpp"

namespace caffe {

namespace {

template <typename Dtype>
const caffe_layers::CudaGroupConvolutionKernel<Dtype>& pick_kernel(const caffe_layers::GroupConvolutionChain& chain,
                                                                   const LayerParameter& param) {
  if (param.fused_group_convolution_param().engine() == FusedGroupConvolutionParameter::REFERENCE) {
    return caffe_layers::cuda_group_convolution_kernels<Dtype>().back();
  }
  return caffe_layers::pick_cuda_group_convolution_kernel<Dtype>(chain);
}

}  // namespace

template <typename Dtype>
const int* FusedGroupConvolutionLayer<Dtype>::ChannelTables() {
  if (channel_tables_.count() == 0) {
    LOG(INFO) << Title() << "CUDA kernel " << pick_kernel<Dtype>(chain_, this->layer_param_).name;
    const vector<int> tables = caffe_layers::channel_tables(chain_);
    channel_tables_.Reshape({static_cast<int>(tables.size())});
    std::copy(tables.begin(), tables.end(), channel_tables_.mutable_cpu_data());
  }
  return channel_tables_.gpu_data();
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                                                    const vector<Blob<Dtype>*>& top) {
  const auto& kernel = pick_kernel<Dtype>(chain_, this->layer_param_);
  void* workspace = caffe_layers::device_workspace(kernel.workspace_bytes(chain_, false), Title());
  const Dtype* residual = bottom.size() > 1 ? bottom[1]->gpu_data() : nullptr;
  kernel.forward(chain_, ChannelTables(), bottom[0]->gpu_data(), Parameters(), {top[0]->mutable_gpu_data(), residual},
                 workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
  if (top.size() > 1) top[1]->ShareData(*bottom[0]);
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::PartSkipGradient(const Blob<Dtype>& skip, Blob<Dtype>* bottom) {
  if (bottom->diff() != skip.diff()) return;
  bottom_diff_.ReshapeLike(*bottom);
  bottom->ShareDiff(bottom_diff_);
}

template <typename Dtype>
void FusedGroupConvolutionLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top,
                                                     const vector<bool>& propagate_down,
                                                     const vector<Blob<Dtype>*>& bottom) {
  if (top.size() > 1 && propagate_down[0]) PartSkipGradient(*top[1], bottom[0]);
  const auto& kernel = pick_kernel<Dtype>(chain_, this->layer_param_);
  const int count = top[0]->count();
  const bool residual = bottom.size() > 1 && propagate_down[1];
  const Dtype* top_diff = top[0]->gpu_diff();
  if (chain_.relu || residual) {
    if (!residual) before_relu_.ReshapeLike(*top[0]);
    Dtype* diff = (residual ? bottom[1] : &before_relu_)->mutable_gpu_diff();
    const Dtype* y = chain_.relu ? top[0]->gpu_data() : nullptr;
    caffe_layers::gradient_before_relu_cuda(count, y, top_diff, diff, cudaStream_t());
    top_diff = diff;
  }
  void* workspace = caffe_layers::device_workspace(kernel.workspace_bytes(chain_, true), Title());
  kernel.backward(chain_, ChannelTables(), bottom[0]->gpu_data(), Parameters(), top_diff,
                  Gradients(top, propagate_down[0] ? bottom[0] : nullptr), workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(FusedGroupConvolutionLayer);

}  // namespace caffe
