#pragma once

#include "caffe_layers/kernels/batch_norm_operands.hpp"

// The functions behind the table of batch_norm_kernels.hpp, one file each.
namespace caffe_layers {

#define DECLARE_BATCH_NORM(suffix)                                         \
  void batch_norm_forward_##suffix(const BatchNormForward<float>& pass);   \
  void batch_norm_forward_##suffix(const BatchNormForward<double>& pass);  \
  void batch_norm_backward_##suffix(const BatchNormBackward<float>& pass); \
  void batch_norm_backward_##suffix(const BatchNormBackward<double>& pass);
DECLARE_BATCH_NORM(reference)
DECLARE_BATCH_NORM(portable)
DECLARE_BATCH_NORM(avx2)
#undef DECLARE_BATCH_NORM

}  // namespace caffe_layers
