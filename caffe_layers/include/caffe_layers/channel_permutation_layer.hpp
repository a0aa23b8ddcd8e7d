#pragma once

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/**
 * @brief Reorders channels: top[n][c] = bottom[n][perm[c]]; the gradient goes back through the inverse (the matrices P
 *        of the paper's equation 4).
 *
 * bottom, top: N x C x any spatial axes. ChannelPermutationParameter gives perm as
 *   - interleave: a number G of branches that divides C; perm[j * G + g] = g * (C / G) + j, so that the channels of one
 *     branch go to different branches (Figure 1);
 *   - index: the C entries of perm;
 *   - inverse: take the inverse of either.
 * LayerSetUp and Reshape end with a message naming the layer, the first wrong entry and C when this is no permutation.
 */
template <typename Dtype>
class ChannelPermutationLayer : public Layer<Dtype> {
 public:
  explicit ChannelPermutationLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;

  const char* type() const override { return "ChannelPermutation"; }
  int ExactNumBottomBlobs() const override { return 1; }
  int ExactNumTopBlobs() const override { return 1; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

  /// perm and its inverse, C entries each; blobs, so that the GPU has them too.
  Blob<int> perm_, inverse_;
};

}  // namespace caffe
