#include "caffe_layers/parallel_pooling_layer.hpp"

#include "caffe_layers/kernels/plane_mean.hpp"

namespace caffe {

template <typename Dtype>
bool ParallelPoolingLayer<Dtype>::MeansOfPlanes() const {
  const PoolingParameter& param = this->layer_param_.pooling_param();
  return param.pool() == PoolingParameter::AVE && this->global_pooling_ && param.engine() != PoolingParameter::CAFFE;
}

template <typename Dtype>
void ParallelPoolingLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (!MeansOfPlanes()) return PoolingLayer<Dtype>::Forward_cpu(bottom, top);
  caffe_layers::plane_means(bottom[0]->cpu_data(), top[0]->count(), bottom[0]->count(2), top[0]->mutable_cpu_data());
}

template <typename Dtype>
void ParallelPoolingLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                               const vector<Blob<Dtype>*>& bottom) {
  if (!MeansOfPlanes()) return PoolingLayer<Dtype>::Backward_cpu(top, propagate_down, bottom);
  if (!propagate_down[0]) return;
  caffe_layers::plane_means_backward(top[0]->cpu_diff(), top[0]->count(), bottom[0]->count(2),
                                     bottom[0]->mutable_cpu_diff());
}

INSTANTIATE_CLASS(ParallelPoolingLayer);

}  // namespace caffe
