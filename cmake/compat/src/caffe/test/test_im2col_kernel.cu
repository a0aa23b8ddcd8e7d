// Caffe's test_im2col_kernel.cu calls the kernels of im2col.cu, which nvcc 13 keeps to the file that defines them.
#include "src/caffe/util/im2col.cu"

#include "src/caffe/test/test_im2col_kernel.cu"
