#pragma once

#include "caffe_layers/kernels/group_convolution_stages.cuh"

namespace caffe_layers {

/// Is this 3x3, pad 1, stride 1 or 2, with maps of which whole rows can be read 16 bytes at a time?
template <typename T>
bool reads_rows(const StageShape& s);

/// Partial sums of a convolution's weight gradient, of any shape.
template <typename T>
void spatial_weight_sums(const StageShape& shape, const StageTables& tables, const T* in, const T* out_diff,
                         const PartialSums<T>& sums, cudaStream_t stream);

/// Gradient with respect to a convolution's input, of any shape.
template <typename T>
void spatial_backward_data(const StageShape& shape, const StageTables& tables, const T* weight, const T* out_diff,
                           const BottomFinish<T>& finish, T* in_diff, cudaStream_t stream);

}  // namespace caffe_layers
