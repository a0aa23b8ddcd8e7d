// CAFFE_TF32: what it may be, and, in a build with cuDNN, what a convolution is told. Needs no GPU.
#include "compat/tf32.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#ifdef USE_CUDNN
#include "caffe/util/cudnn.hpp"
#endif

namespace {

class Tf32Test : public testing::Test {
 protected:
  Tf32Test() { unsetenv("CAFFE_TF32"); }
  ~Tf32Test() override { unsetenv("CAFFE_TF32"); }
  static void Set(const char* value) { setenv("CAFFE_TF32", value, 1); }
};

TEST_F(Tf32Test, IsOffUnlessAskedFor) {
  EXPECT_FALSE(CompatTf32());
  Set("0");
  EXPECT_FALSE(CompatTf32());
  Set("1");
  EXPECT_TRUE(CompatTf32());
}

TEST_F(Tf32Test, RefusesOtherValues) {
  for (const char* value : {"yes", "", "10"}) {
    Set(value);
    EXPECT_DEATH(CompatTf32(), "CAFFE_TF32=.* is not known: 1 allows TF32, 0");
  }
}

#ifdef USE_CUDNN
cudnnMathType_t MathOfConvolution() {
  cudnnTensorDescriptor_t bottom = nullptr;
  cudnnFilterDescriptor_t filter = nullptr;
  cudnnConvolutionDescriptor_t conv = nullptr;
  caffe::cudnn::createTensor4dDesc<float>(&bottom);
  caffe::cudnn::createFilterDesc<float>(&filter, 4, 4, 3, 3);
  caffe::cudnn::createConvolutionDesc<float>(&conv);
  caffe::cudnn::setConvolutionDesc<float>(&conv, bottom, filter, 1, 1, 1, 1);
  cudnnMathType_t math = CUDNN_TENSOR_OP_MATH;
  CUDNN_CHECK(cudnnGetConvolutionMathType(conv, &math));
  cudnnDestroyConvolutionDescriptor(conv);
  cudnnDestroyFilterDescriptor(filter);
  cudnnDestroyTensorDescriptor(bottom);
  return math;
}

TEST_F(Tf32Test, ConvolutionsAreFp32UnlessAskedFor) {
  EXPECT_EQ(MathOfConvolution(), CUDNN_FMA_MATH);
  Set("1");
  EXPECT_EQ(MathOfConvolution(), CUDNN_DEFAULT_MATH);
}
#endif

}  // namespace
