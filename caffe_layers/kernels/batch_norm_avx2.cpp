#include "caffe_layers/kernels/batch_norm_entries.hpp"
#include "caffe_layers/kernels/batch_norm_passes.hpp"

namespace caffe_layers {

void batch_norm_forward_avx2(const BatchNormForward<float>& pass) { forward(pass); }
void batch_norm_forward_avx2(const BatchNormForward<double>& pass) { forward(pass); }
void batch_norm_backward_avx2(const BatchNormBackward<float>& pass) { backward(pass); }
void batch_norm_backward_avx2(const BatchNormBackward<double>& pass) { backward(pass); }

}  // namespace caffe_layers
