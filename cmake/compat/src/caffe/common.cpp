// Caffe's common.cpp with cudaDeviceProp as it was before CUDA 13.
#include "caffe/common.hpp"
#include "compat/cuda_device_prop.hpp"

#include "src/caffe/common.cpp"
