#include "caffe_layers/channel_permutation_layer.hpp"

#include <algorithm>
#include <stdexcept>

#include "caffe_layers/kernels/permutation.hpp"
#include "caffe_layers/layer_params.hpp"

namespace caffe {

template <typename Dtype>
void ChannelPermutationLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const string layer = "Layer '" + this->layer_param_.name() + "' (ChannelPermutation): ";
  CHECK(bottom[0] != top[0]) << layer << "top and bottom are the same blob: cannot work in place, name the top "
                             << "differently";
  CHECK_GE(bottom[0]->num_axes(), 2) << layer << "bottom has shape " << bottom[0]->shape_string()
                                     << ": must have at least two axes, N x C x ...";
  CHECK_GT(bottom[0]->count(), 0) << layer << "bottom has shape " << bottom[0]->shape_string() << ": must not be empty";
  top[0]->ReshapeLike(*bottom[0]);
  const int channels = bottom[0]->shape(1);
  if (perm_.count() == channels) return;
  try {
    const vector<int> perm = permutation_from_param(this->layer_param_.channel_permutation_param(), channels);
    const vector<int> inverse = caffe_layers::invert_permutation(perm);
    perm_.Reshape(vector<int>(1, channels));
    inverse_.Reshape(vector<int>(1, channels));
    std::copy(perm.begin(), perm.end(), perm_.mutable_cpu_data());
    std::copy(inverse.begin(), inverse.end(), inverse_.mutable_cpu_data());
  } catch (const std::invalid_argument& error) {
    LOG(FATAL) << layer << error.what();
  }
}

template <typename Dtype>
void ChannelPermutationLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  caffe_layers::permute_channels(bottom[0]->cpu_data(), perm_.cpu_data(), bottom[0]->shape(0), bottom[0]->shape(1),
                                 bottom[0]->count(2), top[0]->mutable_cpu_data());
}

template <typename Dtype>
void ChannelPermutationLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                  const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) return;
  caffe_layers::permute_channels(top[0]->cpu_diff(), inverse_.cpu_data(), top[0]->shape(0), top[0]->shape(1),
                                 top[0]->count(2), bottom[0]->mutable_cpu_diff());
}

#ifdef CPU_ONLY
STUB_GPU(ChannelPermutationLayer);
#endif

INSTANTIATE_CLASS(ChannelPermutationLayer);
REGISTER_LAYER_CLASS(ChannelPermutation);

}  // namespace caffe
