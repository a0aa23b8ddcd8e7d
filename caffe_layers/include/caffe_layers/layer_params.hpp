#pragma once

#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe_layers/kernels/group_convolution_chain.hpp"

namespace caffe {

/// The table perm (top channel c = bottom channel perm[c]) that a parameter describes for `channels` channels.
/// Throws std::invalid_argument that says which field is wrong, its value and what would be right.
std::vector<int> permutation_from_param(const ChannelPermutationParameter& param, int channels);

/// The chain of group convolutions that a parameter describes for an input of batch x channels x height x width.
/// Throws std::invalid_argument that says which stage and field is wrong, its value and what would be right.
caffe_layers::GroupConvolutionChain chain_from_param(const FusedGroupConvolutionParameter& param, int batch,
                                                     int channels, int height, int width);

}  // namespace caffe
