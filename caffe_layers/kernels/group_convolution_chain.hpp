#pragma once

#include <vector>

namespace caffe_layers {

/// One group convolution that reads its input channels through a permutation (P W of equation 4).
/// Weights: out_channels x (in_channels / group) x kernel x kernel, as in Caffe's Convolution.
struct GroupConvolutionStage {
  int in_channels, out_channels, group;
  int kernel, stride, pad, dilation;
  int in_height, in_width, out_height, out_width;
  bool bias;
  /// Channel c of this stage's input is channel input_channel[c] of what comes before; in_channels entries.
  std::vector<int> input_channel;
};

/// Several group convolutions in a row, then perhaps a residual's addition and a ReLU. Tensors are N x C x H x W,
/// contiguous.
struct GroupConvolutionChain {
  int batch;
  std::vector<GroupConvolutionStage> stages;
  /// Top channel c is channel output_channel[c] of the last stage.
  std::vector<int> output_channel;
  /// max(top, 0), after the residual.
  bool relu = false;
};

/// The `supports` of a kernel that takes all.
inline bool any_chain(const GroupConvolutionChain&) { return true; }

}  // namespace caffe_layers
