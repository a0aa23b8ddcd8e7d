#include "caffe_layers/fused_batch_norm_layer.hpp"
#include "caffe_layers/kernels/batch_norm_cuda.hpp"
#include "caffe_layers/kernels/workspace_cuda.hpp"

namespace caffe {

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const caffe_layers::BatchNormForward<Dtype> pass = ForwardPass(bottom, top);
  // The moving sums stay on the GPU: to look at the factor here would wait for it.
  const caffe_layers::MovingStatistics<Dtype> moving = {
      this->blobs_[kMean]->mutable_gpu_data(), this->blobs_[kVariance]->mutable_gpu_data(),
      this->blobs_[kFactor]->mutable_gpu_data(), moving_average_fraction_};
  void* workspace = caffe_layers::device_workspace(caffe_layers::batch_norm_workspace_bytes_cuda(shape_), Title());
  caffe_layers::batch_norm_forward_cuda(pass, moving, workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void FusedBatchNormLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                              const vector<Blob<Dtype>*>& bottom) {
  const caffe_layers::BatchNormBackward<Dtype> pass = BackwardPass(top, propagate_down, bottom);
  void* workspace = caffe_layers::device_workspace(caffe_layers::batch_norm_workspace_bytes_cuda(shape_), Title());
  caffe_layers::batch_norm_backward_cuda(pass, workspace, cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(FusedBatchNormLayer);

}  // namespace caffe
