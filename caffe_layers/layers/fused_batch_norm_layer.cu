#include "caffe_layers/fused_batch_norm_layer.hpp"
#include "caffe_layers/kernels/batch_norm_cuda.hpp"
#include "caffe_layers/kernels/workspace_cuda.hpp"

namespace caffe {

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  caffe_layers::BatchNormForward<Dtype> pass = {};
  pass.shape = shape_;
  pass.x = KeepInput(bottom, top).gpu_data();
  pass.residual = bottom.size() > 1 ? bottom[1]->gpu_data() : nullptr;
  pass.gamma = this->blobs_[kGamma]->gpu_data();
  pass.beta = this->blobs_[kBeta]->gpu_data();
  pass.eps = eps_;
  pass.relu = relu_;
  pass.batch_statistics = !use_global_stats_;
  pass.mean = mean_.mutable_gpu_data();
  pass.variance = variance_.mutable_gpu_data();
  pass.y = top[0]->mutable_gpu_data();
  // The moving sums stay on the GPU: to look at the factor here would wait for it.
  const caffe_layers::MovingStatistics<Dtype> moving = {
      this->blobs_[kMean]->mutable_gpu_data(), this->blobs_[kVariance]->mutable_gpu_data(),
      this->blobs_[kFactor]->mutable_gpu_data(), moving_average_fraction_};
  void* workspace = caffe_layers::device_workspace(caffe_layers::batch_norm_workspace_bytes_cuda(shape_));
  caffe_layers::batch_norm_forward_cuda(pass, moving, workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
  if (top.size() > 1) top[1]->ShareData(*top[0]);
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                              const vector<Blob<Dtype>*>& bottom) {
  const auto parameter_diff = [this](int blob) {
    return this->param_propagate_down_[blob] ? this->blobs_[blob]->mutable_gpu_diff() : nullptr;
  };
  ShareSkipGradient(top, propagate_down, bottom);
  caffe_layers::BatchNormBackward<Dtype> pass = {};
  pass.shape = shape_;
  pass.x = Input(bottom, top).gpu_data();
  pass.y = top[0]->gpu_data();
  pass.residual = bottom.size() > 1;
  pass.gamma = this->blobs_[kGamma]->gpu_data();
  pass.beta = this->blobs_[kBeta]->gpu_data();
  pass.eps = eps_;
  pass.relu = relu_;
  pass.batch_statistics = !use_global_stats_;
  pass.mean = mean_.gpu_data();
  pass.variance = variance_.gpu_data();
  pass.y_diff = top[0]->gpu_diff();
  pass.skip_diff = top.size() > 1 ? top[1]->gpu_diff() : nullptr;
  pass.x_diff = propagate_down[0] ? bottom[0]->mutable_gpu_diff() : nullptr;
  pass.residual_diff = bottom.size() > 1 && propagate_down[1] ? bottom[1]->mutable_gpu_diff() : nullptr;
  pass.gamma_diff = parameter_diff(kGamma);
  pass.beta_diff = parameter_diff(kBeta);
  void* workspace = caffe_layers::device_workspace(caffe_layers::batch_norm_workspace_bytes_cuda(shape_));
  caffe_layers::batch_norm_backward_cuda(pass, workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(FusedBatchNormLayer);

}  // namespace caffe
