#pragma once

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/kernels/batch_norm_kernels.hpp"

namespace caffe {

/**
 * @brief BatchNorm + Scale [+ Eltwise sum with a residual] [+ ReLU] in one layer that reads and writes memory once:
 * y = relu(gamma * (x - mean) / sqrt(variance + eps) + beta + residual), per channel.
 *
 * bottom: x, N x C [x ...], and optionally the residual, of the same shape. top: y, of the same shape. top[0] may be
 * bottom[0]: x and y then share their gradient's memory, and the layer keeps x for the backward pass by giving the blob
 * another memory for y (no copy).
 *
 * relu_gradient: false leaves the ReLU's gradient to the reader of y, FusedGroupConvolution with bottom_relu. The
 * residual's gradient then is y's, in the same memory unless the layer works in place. On the CPU backward ends with a
 * message if y's gradient is not zero where y is, among the first 1024 values. Without relu it must not be false.
 *
 * Statistics are those of stock BatchNorm: mean and variance of the batch (TRAIN), or of the moving averages (TEST, or
 * use_global_stats: true). Parameter blobs: mean and variance sums (C), their common factor (1), as in stock BatchNorm,
 * then gamma and beta (C), as in stock Scale with bias_term. The first three are no subject of the solver: their
 * lr_mult is 0, and `param` entries that say otherwise are an error; the fourth and fifth `param` are gamma's and
 * beta's.
 *
 * The moving average takes the unbiased variance, the normalisation the biased one (stock BatchNorm again).
 */
template <typename Dtype>
class FusedBatchNormLayer : public Layer<Dtype> {
 public:
  explicit FusedBatchNormLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;

  const char* type() const override { return "FusedBatchNorm"; }
  int MinBottomBlobs() const override { return 1; }
  int MaxBottomBlobs() const override { return 2; }
  int ExactNumTopBlobs() const override { return 1; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

  enum ParameterBlob { kMean, kVariance, kFactor, kGamma, kBeta, kParameterBlobs };

  /// The operands of a pass, on the current device. Forward's x is kept for backward where the layer works in place.
  caffe_layers::BatchNormForward<Dtype> ForwardPass(const vector<Blob<Dtype>*>& bottom,
                                                    const vector<Blob<Dtype>*>& top);
  caffe_layers::BatchNormBackward<Dtype> BackwardPass(const vector<Blob<Dtype>*>& top,
                                                      const vector<bool>& propagate_down,
                                                      const vector<Blob<Dtype>*>& bottom);

  caffe_layers::BatchNormShape shape_;
  bool use_global_stats_, relu_;
  bool relu_gradient_;  ///< taken by this layer
  Dtype moving_average_fraction_, eps_;
  /// What the last forward pass normalised by (the variance is the biased one).
  Blob<Dtype> mean_, variance_;

 private:
  string Title() const;
  void CreateParameters();
  void FixStatistics();
  void LoadGlobalStatistics();
  void UpdateMovingAverage();

  /// Ends with a message unless x is N x C [x ...] and not empty.
  void CheckBottom(const Blob<Dtype>& x) const;
  /// x; in place it moves to input_, and y gets other memory.
  const Blob<Dtype>& KeepInput(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  /// Where the residual's gradient is to be written; null if it is not asked for, or is y's: then they share memory.
  Dtype* ResidualGradient(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                          const vector<Blob<Dtype>*>& bottom) const;
  /// Ends with a message if, among the first values, the reader of y has not taken the ReLU's gradient.
  void CheckMask(const Blob<Dtype>& y, const Blob<Dtype>& y_diff) const;
  /// In place: gives y memory as large as x's. The one that x had in the pass before, where the layer in front wrote x
  /// into y's last one; else, where that layer brings memory of its own each time, y's last one, unless a data layer
  /// has exchanged it or another layer holds it, as one that works on the same blob may for its x; else a new one.
  void ShareOutputMemory(const Blob<Dtype>& x, Blob<Dtype>* y);

  Blob<Dtype> input_, output_;     // in place: x, and y's memory
  const Dtype* output_address_{};  // which a data layer exchanges behind output_'s back
  const caffe_layers::BatchNormKernel<Dtype>* kernel_;
};

}  // namespace caffe
