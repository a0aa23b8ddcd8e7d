// Caffe's layer_factory.cpp, with two differences. The default engine is cuDNN only where there is a GPU: cuDNN's
// layers abort when they are made without one, even in a net that computes on the CPU. And Pooling is our subclass of
// Caffe's.
#include "caffe_layers/parallel_pooling_layer.hpp"
#include "compat/gpu_present.hpp"

#ifdef USE_CUDNN
#include "caffe/proto/caffe.pb.h"

#define CUDNN_IF_GPU(Param) (CompatGpuPresent() ? Param##_Engine_CUDNN : Param##_Engine_CAFFE)
#define ConvolutionParameter_Engine_CUDNN CUDNN_IF_GPU(ConvolutionParameter)
#define LRNParameter_Engine_CUDNN CUDNN_IF_GPU(LRNParameter)
#define PoolingParameter_Engine_CUDNN CUDNN_IF_GPU(PoolingParameter)
#define ReLUParameter_Engine_CUDNN CUDNN_IF_GPU(ReLUParameter)
#define SigmoidParameter_Engine_CUDNN CUDNN_IF_GPU(SigmoidParameter)
#define SoftmaxParameter_Engine_CUDNN CUDNN_IF_GPU(SoftmaxParameter)
#define TanHParameter_Engine_CUDNN CUDNN_IF_GPU(TanHParameter)
#endif

#ifdef USE_CUDNN
#include "caffe/layers/cudnn_pooling_layer.hpp"
#endif
#define PoolingLayer ParallelPoolingLayer
#include "src/caffe/layer_factory.cpp"
