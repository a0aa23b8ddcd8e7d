#pragma once

#include <vector>

#include "caffe/layers/pooling_layer.hpp"

namespace caffe {

/// Caffe's Pooling, whose mean over whole maps (pool: AVE, global_pooling: true; the last layer of every network of the
/// paper) runs on all threads of the CPU. The factory makes it wherever Caffe would make its own PoolingLayer
/// (cmake/compat/src/caffe/layer_factory.cpp). All else, `engine: CAFFE` and the GPU are Caffe's.
template <typename Dtype>
class ParallelPoolingLayer : public PoolingLayer<Dtype> {
 public:
  explicit ParallelPoolingLayer(const LayerParameter& param) : PoolingLayer<Dtype>(param) {}

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

 private:
  bool MeansOfPlanes() const;
};

}  // namespace caffe
