#pragma once

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe {

/**
 * @brief One or several group convolutions in a row, with the permutations before, between and after them, in one
 * layer: y = P_L W_L ... P_1 W_1 x (equation 4). What lies between is not written to memory. For inference, where batch
 * norm is folded into the weights, also what follows it: relu(y + residual).
 *
 * bottom: x, N x C x H x W; optionally the residual, shaped as the top. top: N x num_output of the last stage x its
 * output height x width, where per stage output = (input + 2 * pad - dilation * (kernel_size - 1) - 1) / stride + 1;
 * optionally x once more (the same memory) for a second reader, a skip connection: its gradient is added to x's while
 * that is written, where Caffe's Split layer would need passes of its own. On the CPU the two gradients share memory.
 *
 * FusedGroupConvolutionParameter has per stage what stock Convolution has (num_output, group, kernel_size, stride, pad,
 * dilation, bias_term, fillers), the permutation its input is read through, and a permutation of the last output;
 * relu: max(y, 0) after the residual; bottom_relu: x is the top of a ReLU that leaves its gradient to this layer
 * (FusedBatchNorm's relu_gradient: false), so x's gradient, with the second top's, is zero where x is not positive.
 *
 * Parameter blobs, in this order for each stage: weights, num_output x input channels / group x kernel_size x
 * kernel_size, then a bias of num_output values unless bias_term is false: what a stock Convolution per stage would
 * hold. Fillers see the fan-in of one group.
 *
 * LayerSetUp and Reshape end with one message that names layer, stage, field, its value and what would be right when
 * the parameters don't fit each other or the input.
 */
template <typename Dtype>
class FusedGroupConvolutionLayer : public Layer<Dtype> {
 public:
  explicit FusedGroupConvolutionLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;

  const char* type() const override { return "FusedGroupConvolution"; }
  int MinBottomBlobs() const override { return 1; }
  int MaxBottomBlobs() const override { return 2; }
  int MinTopBlobs() const override { return 1; }
  int MaxTopBlobs() const override { return 2; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

  /// How messages of this layer begin.
  string Title() const;
  /// The chain for this input; ends with a message when the parameters or the input are wrong.
  caffe_layers::GroupConvolutionChain BuildChain(const Blob<Dtype>& bottom) const;
  /// Position in blobs_ of a stage's weights; its bias, if any, is the next one.
  int WeightBlob(int stage) const;

  caffe_layers::GroupConvolutionChain chain_;
  /// The CPU implementation in use; an entry of the table of kernels.
  const caffe_layers::GroupConvolutionKernel<Dtype>* kernel_ = nullptr;
  Blob<int> channel_tables_;  ///< of ChannelTables()
  Blob<Dtype> bottom_diff_;   ///< its diff: that of a bottom whose own the CPU has given up
  Blob<Dtype> before_relu_;   ///< its diff: the gradient in front of the ReLU, where no residual's diff holds it

 private:
  void CreateParameters();
  void PickKernel();
  /// The chain's permutations on the GPU, put there at the first pass.
  const int* ChannelTables();
  /// Parameters and gradients on the current device; bottom null: its gradient is not asked for.
  caffe_layers::ChainParameters<Dtype> Parameters() const;
  caffe_layers::ChainGradients<Dtype> Gradients(const vector<Blob<Dtype>*>& top, Blob<Dtype>* bottom) const;
  /// Scratch memory of this thread. Ends with a message where there is not so much.
  void* Workspace(size_t bytes) const;
  /// Lets the bottom's gradient take the place of the second top's, unless nobody writes that (it is zero, or was never
  /// looked at): a pass would then find the last one's result there.
  void ShareSkipGradient(const Blob<Dtype>& skip, Blob<Dtype>* bottom) const;
  /// Undoes that for the GPU's kernels, which need two memories.
  void PartSkipGradient(const Blob<Dtype>& skip, Blob<Dtype>* bottom);
  /// Writes the residual's gradient if asked for; returns the convolutions'.
  const Dtype* BackwardEpilogue(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                const vector<Blob<Dtype>*>& bottom);
};

}  // namespace caffe
