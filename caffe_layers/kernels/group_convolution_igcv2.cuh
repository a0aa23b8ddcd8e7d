#pragma once

#include "caffe_layers/kernels/group_convolution_stages.cuh"

namespace caffe_layers {

/// IGC-V2's block: a depthwise 3x3 with pad 1, then two group 1x1 of 8 or 16 channels per branch, no biases. A warp
/// takes the depthwise stage and one branch of a 1x1 stage together, the values between them in registers; only what
/// lies between the 1x1 stages goes through shared memory. Maps are cut into tiles of whole rows.
/// Forward: one launch. Backward, of all gradients: one that computes what lies between again and takes the gradient
/// through the 1x1 stages, their weights' and the depthwise kernels' gradients on the way; one that adds up the tiles'
/// sums; one for bottom's gradient through the depthwise stage. Of some gradients: that of "tiles".
template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_igcv2();

/// Channels per branch of the first 1x1 stage.
inline int branch_channels(const GroupConvolutionChain& chain) {
  return chain.stages[1].in_channels / chain.stages[1].group;
}
/// Into how many tiles the batch is cut.
template <typename T>
int igcv2_tiles(const GroupConvolutionChain& chain);

/// Shared memory of a block of threads, forward and backward.
template <typename T>
size_t igcv2_shared_bytes(const GroupConvolutionChain& chain);

/// In the workspace of "tiles": that has four tensors of what lies between the stages; here it is one, and for each
/// tile the partial sums of the weights, which are fewer values than the tile has of another tensor.
template <typename T>
void igcv2_backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
                    void* workspace, cudaStream_t stream);

}  // namespace caffe_layers
