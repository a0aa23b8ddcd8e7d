#include "caffe_layers/channel_permutation_layer.hpp"
#include "caffe_layers/kernels/permutation_cuda.hpp"

namespace caffe {

template <typename Dtype>
void ChannelPermutationLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  caffe_layers::permute_channels_cuda(bottom[0]->gpu_data(), perm_.gpu_data(), bottom[0]->shape(0), bottom[0]->shape(1),
                                      bottom[0]->count(2), top[0]->mutable_gpu_data(), cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void ChannelPermutationLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                  const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) return;
  caffe_layers::permute_channels_cuda(top[0]->gpu_diff(), inverse_.gpu_data(), top[0]->shape(0), top[0]->shape(1),
                                      top[0]->count(2), bottom[0]->mutable_gpu_diff(), cudaStream_t());
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(ChannelPermutationLayer);

}  // namespace caffe
