// Caffe's cudnn_conv_layer.cpp with the algorithm queries that cuDNN 8 dropped, in FP32 unless CAFFE_TF32=1.
#include "compat/cudnn_algorithms.hpp"
#include "compat/tf32.hpp"

#include "src/caffe/layers/cudnn_conv_layer.cpp"
