#include <algorithm>

#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/group_convolution_stages.cuh"
#include "caffe_layers/kernels/partial_sums.cuh"

namespace caffe_layers {

namespace {

/// What one thread computes: a value of one image. Images together may have more than 2^32: between stages, no blob
/// limits them.
struct Place {
  int n;
  unsigned at;
};
__device__ __forceinline__ Place own_place(unsigned image) {
  const size_t index = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  return {static_cast<int>(index / image), static_cast<unsigned>(index % image)};
}

/// out[n][destination[o]][y][x] = bias[o] + sum over i, ky, kx of
///   w[o][i][ky][kx] * in[n][source[g * I + i]][y * stride - pad + ky * dilation][likewise x]; one thread per output.
/// Then the residual (may be null, laid out as out) and the ReLU.
template <typename T>
__global__ void forward_kernel(StageShape s, StageTables tables, const T* __restrict__ in, const T* __restrict__ weight,
                               const T* __restrict__ bias, const T* __restrict__ residual, bool relu,
                               T* __restrict__ out) {
  const unsigned plane = s.out_height * s.out_width;
  const auto [n, at_in_image] = own_place(s.out_channels * plane);
  if (n >= s.batch) return;
  const int x = at_in_image % s.out_width, y = at_in_image % plane / s.out_width, o = at_in_image / plane;
  const int first_in = o / s.group_out * s.group_in;
  T sum = bias ? bias[o] : T(0);
  for (int i = 0; i < s.group_in; ++i) {
    const int channel = source_channel(tables, first_in + i);
    const T* image = in + (static_cast<size_t>(n) * s.in_channels + channel) * s.in_height * s.in_width;
    const T* w = weight + (static_cast<size_t>(o) * s.group_in + i) * s.kernel * s.kernel;
    for (int ky = 0; ky < s.kernel; ++ky) {
      const int in_y = y * s.stride - s.pad + ky * s.dilation;
      if (in_y < 0 || in_y >= s.in_height) continue;
      for (int kx = 0; kx < s.kernel; ++kx) {
        const int in_x = x * s.stride - s.pad + kx * s.dilation;
        if (in_x >= 0 && in_x < s.in_width) sum += w[ky * s.kernel + kx] * image[in_y * s.in_width + in_x];
      }
    }
  }
  const size_t at = (static_cast<size_t>(n) * s.out_channels + tables.destination[o]) * plane + y * s.out_width + x;
  if (residual) sum += residual[at];
  out[at] = relu && sum < 0 ? T(0) : sum;
}

template <typename T>
__global__ void gradient_before_relu_kernel(size_t count, const T* y, const T* y_diff, T* diff) {
  const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) diff[i] = !y || y[i] > 0 ? y_diff[i] : T(0);
}

/// The output position that input position `in` meets under kernel position k; -1 where there is none.
__device__ __forceinline__ int output_position(const StageShape& s, int in, int k, int out_extent) {
  const int scaled = in + s.pad - k * s.dilation;
  if (scaled < 0 || scaled % s.stride != 0) return -1;
  return scaled / s.stride < out_extent ? scaled / s.stride : -1;
}

/// in_diff[n][source[i]][in_y][in_x] = sum of w[o][i][ky][kx] * out_diff[n][destination[o]][y][x] over all that met it,
/// finished.
template <typename T>
__global__ void backward_data_kernel(StageShape s, StageTables tables, const T* __restrict__ weight,
                                     const T* __restrict__ out_diff, BottomFinish<T> finish, T* __restrict__ in_diff) {
  const unsigned plane = s.in_height * s.in_width;
  const auto [n, at_in_image] = own_place(s.in_channels * plane);
  if (n >= s.batch) return;
  const int in_x = at_in_image % s.in_width, in_y = at_in_image % plane / s.in_width, i = at_in_image / plane;
  const int first_out = i / s.group_in * s.group_out;
  T sum = 0;
  for (int k = 0; k < s.group_out; ++k) {
    const int channel = tables.destination[first_out + k];
    const T* image = out_diff + (static_cast<size_t>(n) * s.out_channels + channel) * s.out_height * s.out_width;
    const T* w = weight + (static_cast<size_t>(first_out + k) * s.group_in + i % s.group_in) * s.kernel * s.kernel;
    for (int ky = 0; ky < s.kernel; ++ky) {
      const int y = output_position(s, in_y, ky, s.out_height);
      if (y < 0) continue;
      for (int kx = 0; kx < s.kernel; ++kx) {
        const int x = output_position(s, in_x, kx, s.out_width);
        if (x >= 0) sum += w[ky * s.kernel + kx] * image[y * s.out_width + x];
      }
    }
  }
  const int channel = source_channel(tables, i);
  const size_t at = (static_cast<size_t>(n) * s.in_channels + channel) * plane + in_y * s.in_width + in_x;
  in_diff[at] = finish(sum, at);
}

/// Into how many slices of the batch the gradients of a stage's parameters are divided.
size_t slice_count(const StageShape& s) {
  const size_t pixels = static_cast<size_t>(s.batch) * s.out_height * s.out_width;
  return std::min<size_t>(ceil_div<size_t>(pixels, kThreads), 16);
}

size_t output_count(const GroupConvolutionChain& chain, size_t stage) {
  const GroupConvolutionStage& s = chain.stages[stage];
  return static_cast<size_t>(chain.batch) * s.out_channels * s.out_height * s.out_width;
}

/// Outputs of all stages but the last; for backward as much again for their gradients, and the partial sums.
template <typename T>
size_t workspace_bytes(const GroupConvolutionChain& chain, bool backward) {
  size_t between = 0, partials = 0;
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    if (s + 1 < chain.stages.size()) between += output_count(chain, s);
    const StageShape shape = stage_shape(chain, s);
    partials = std::max(partials, slice_count(shape) * (weight_count(shape) + shape.out_channels));
  }
  return (backward ? 2 * between + partials : between) * sizeof(T);
}

/// The outputs of all stages but the last, from `memory` on; returns the memory after them.
template <typename T>
T* between_stages(const GroupConvolutionChain& chain, T* memory, std::vector<T*>& outputs) {
  for (size_t s = 0; s + 1 < chain.stages.size(); ++s) {
    outputs.push_back(memory);
    memory += output_count(chain, s);
  }
  return memory;
}

/// Stages 0 .. outputs.size() - 1; if that is all of them, with the residual and the ReLU.
template <typename T>
void forward_stages(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
                    const ChainParameters<T>& parameters, const std::vector<T*>& outputs, const T* residual,
                    cudaStream_t stream) {
  for (size_t s = 0; s < outputs.size(); ++s) {
    const unsigned blocks = ceil_div<size_t>(output_count(chain, s), kThreads);
    const bool last = s + 1 == chain.stages.size();
    launch(forward_kernel<T>, dim3(blocks), 0, stream, stage_shape(chain, s), stage_tables(chain, tables, s),
           s == 0 ? bottom : outputs[s - 1], parameters.weight[s], parameters.bias[s], last ? residual : nullptr,
           last && chain.relu, outputs[s]);
  }
}

template <typename T>
void forward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
             const ChainParameters<T>& parameters, ChainTop<T> top, void* workspace, cudaStream_t stream) {
  std::vector<T*> outputs;
  between_stages(chain, static_cast<T*>(workspace), outputs);
  outputs.push_back(top.data);
  forward_stages(chain, tables, bottom, parameters, outputs, top.residual, stream);
}

template <typename T>
void backward_parameters(const StageShape& shape, const StageTables& tables, const T* in, const T* out_diff,
                         T* weight_diff, T* bias_diff, T* partials, cudaStream_t stream) {
  const int slices = static_cast<int>(slice_count(shape));
  Segments<T> segments;
  if (weight_diff) segments.add(weight_diff, static_cast<int>(weight_count(shape)));
  const int bias_entry = segments.size();
  if (bias_diff) segments.add(bias_diff, shape.out_channels);
  if (weight_diff) {
    stage_weight_sums<T>(shape, tables, in, out_diff, {partials, slices, 0, segments.size()}, stream);
  }
  if (bias_diff) {
    stage_bias_sums<T>(shape, tables, out_diff, {partials, slices, bias_entry, segments.size()}, stream);
  }
  add_partial_sums<T>(partials, slices, segments, stream);
}

template <typename T>
void backward(const GroupConvolutionChain& chain, const int* tables, const T* bottom,
              const ChainParameters<T>& parameters, const T* top_diff, const ChainGradients<T>& gradients,
              void* workspace, cudaStream_t stream) {
  std::vector<T*> outputs, diffs;
  T* memory = between_stages(chain, static_cast<T*>(workspace), outputs);
  T* partials = between_stages(chain, memory, diffs);
  forward_stages(chain, tables, bottom, parameters, outputs, static_cast<const T*>(nullptr), stream);
  for (size_t s = chain.stages.size(); s-- > 0;) {
    const StageShape shape = stage_shape(chain, s);
    const StageTables channels = stage_tables(chain, tables, s);
    const T* out_diff = s + 1 == chain.stages.size() ? top_diff : diffs[s];
    backward_parameters(shape, channels, s == 0 ? bottom : outputs[s - 1], out_diff, gradients.weight[s],
                        gradients.bias[s], partials, stream);
    T* in_diff = s == 0 ? gradients.bottom : diffs[s - 1];
    const BottomFinish<T> finish = s == 0 ? bottom_finish(gradients, bottom) : BottomFinish<T>();
    if (in_diff) stage_backward_data(shape, channels, parameters.weight[s], out_diff, finish, in_diff, stream);
  }
}

}  // namespace

StageShape stage_shape(const GroupConvolutionChain& chain, size_t stage) {
  const GroupConvolutionStage& s = chain.stages[stage];
  return {chain.batch,
          s.in_channels,
          s.out_channels,
          s.in_channels / s.group,
          s.out_channels / s.group,
          s.kernel,
          s.stride,
          s.pad,
          s.dilation,
          s.in_height,
          s.in_width,
          s.out_height,
          s.out_width};
}

StageTables stage_tables(const GroupConvolutionChain& chain, const int* tables, size_t stage) {
  const int* destination = tables + chain.stages[0].in_channels;
  for (size_t s = 0; s < stage; ++s) destination += chain.stages[s].out_channels;
  return {stage == 0 ? tables : nullptr, destination};
}

const int* depthwise_inputs(const GroupConvolutionChain& chain, const int* tables) {
  return stage_tables(chain, tables, chain.stages.size()).destination;
}

template <typename T>
void stage_backward_data(const StageShape& shape, const StageTables& tables, const T* weight, const T* out_diff,
                         const BottomFinish<T>& finish, T* in_diff, cudaStream_t stream) {
  const size_t count = static_cast<size_t>(shape.batch) * shape.in_channels * shape.in_height * shape.in_width;
  launch(backward_data_kernel<T>, dim3(ceil_div<size_t>(count, kThreads)), 0, stream, shape, tables, weight, out_diff,
         finish, in_diff);
}

template <typename T>
void gradient_before_relu_cuda(size_t count, const T* y, const T* y_diff, T* diff, cudaStream_t stream) {
  launch(gradient_before_relu_kernel<T>, dim3(ceil_div<size_t>(count, kThreads)), 0, stream, count, y, y_diff, diff);
}

template <typename T>
CudaGroupConvolutionKernel<T> group_convolution_stages() {
  return {"stages", any_chain, workspace_bytes<T>, forward<T>, backward<T>};
}

template void stage_backward_data<float>(const StageShape&, const StageTables&, const float*, const float*,
                                         const BottomFinish<float>&, float*, cudaStream_t);
template void stage_backward_data<double>(const StageShape&, const StageTables&, const double*, const double*,
                                          const BottomFinish<double>&, double*, cudaStream_t);
template void gradient_before_relu_cuda<float>(size_t, const float*, const float*, float*, cudaStream_t);
template void gradient_before_relu_cuda<double>(size_t, const double*, const double*, double*, cudaStream_t);
template CudaGroupConvolutionKernel<float> group_convolution_stages<float>();
template CudaGroupConvolutionKernel<double> group_convolution_stages<double>();

}  // namespace caffe_layers
