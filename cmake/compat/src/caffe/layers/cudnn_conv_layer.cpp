// Caffe's cudnn_conv_layer.cpp with the algorithm queries that cuDNN 8 dropped.
#include "compat/cudnn_algorithms.hpp"

#include "src/caffe/layers/cudnn_conv_layer.cpp"
