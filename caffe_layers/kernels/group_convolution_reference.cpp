#include "caffe_layers/kernels/group_convolution_reference.hpp"

#include <algorithm>

#include "caffe_layers/kernels/cpu.hpp"

namespace caffe_layers {

namespace {

using Stage = GroupConvolutionStage;

size_t input_size(const Stage& s) { return static_cast<size_t>(s.in_channels) * s.in_height * s.in_width; }
size_t output_size(const Stage& s) { return static_cast<size_t>(s.out_channels) * s.out_height * s.out_width; }

/// Output positions begin .. end - 1 whose input position, position * stride + offset, is not in the padding.
struct Range {
  int begin, end;
};

Range inside(int offset, int stride, int input, int output) {
  const int begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
  const int end = offset < input ? (input - 1 - offset) / stride + 1 : 0;
  return {begin, std::min(end, output)};
}

/// Calls visit(output index, weight index, input index) for every product of the stage's sums (P W x of equation 4)
///   out[o][y][x] = sum over i, ky, kx of w[o][i][ky][kx] * in[input_channel[g * I + i]][in_y][in_x],
///   in_y = y * stride - pad + ky * dilation, in_x likewise,
/// where g is the group of o and I the number of input channels per group. Padding is zero: no product.
template <typename Visit>
void for_each_product(const Stage& s, Visit visit) {
  const int group_in = s.in_channels / s.group, group_out = s.out_channels / s.group;
  size_t weight = 0;
  for (int o = 0; o < s.out_channels; ++o) {
    for (int i = 0; i < group_in; ++i) {
      const size_t channel = s.input_channel[o / group_out * group_in + i];
      for (int ky = 0; ky < s.kernel; ++ky) {
        const int offset_y = ky * s.dilation - s.pad;
        const Range rows = inside(offset_y, s.stride, s.in_height, s.out_height);
        for (int kx = 0; kx < s.kernel; ++kx, ++weight) {
          const int offset_x = kx * s.dilation - s.pad;
          const Range columns = inside(offset_x, s.stride, s.in_width, s.out_width);
          for (int y = rows.begin; y < rows.end; ++y) {
            const size_t out_row = (static_cast<size_t>(o) * s.out_height + y) * s.out_width;
            const size_t in_row = (channel * s.in_height + y * s.stride + offset_y) * s.in_width;
            for (int x = columns.begin; x < columns.end; ++x) {
              visit(out_row + x, weight, in_row + x * s.stride + offset_x);
            }
          }
        }
      }
    }
  }
}

template <typename T>
void stage_forward(const Stage& s, const T* in, const T* weight, const T* bias, T* out) {
  const size_t plane = output_size(s) / s.out_channels;
  for (int o = 0; o < s.out_channels; ++o) std::fill_n(out + o * plane, plane, bias ? bias[o] : T(0));
  for_each_product(s, [=](size_t o, size_t w, size_t i) { out[o] += weight[w] * in[i]; });
}

template <typename T>
void stage_backward_data(const Stage& s, const T* weight, const T* out_diff, T* in_diff) {
  std::fill_n(in_diff, input_size(s), T(0));
  for_each_product(s, [=](size_t o, size_t w, size_t i) { in_diff[i] += weight[w] * out_diff[o]; });
}

template <typename T>
void stage_backward_weight(const Stage& s, const T* in, const T* out_diff, T* weight_diff) {
  for_each_product(s, [=](size_t o, size_t w, size_t i) { weight_diff[w] += out_diff[o] * in[i]; });
}

template <typename T>
void stage_backward_bias(const Stage& s, const T* out_diff, T* bias_diff) {
  const size_t plane = output_size(s) / s.out_channels;
  for (size_t i = 0; i < output_size(s); ++i) bias_diff[i / plane] += out_diff[i];
}

size_t all_outputs(const GroupConvolutionChain& chain) {
  size_t values = 0;
  for (const Stage& s : chain.stages) values += output_size(s);
  return values;
}

/// Outputs of all stages for one image; in backward as much again for their gradients, and the bottom's.
template <typename T>
size_t workspace_bytes(const GroupConvolutionChain& chain, bool backward) {
  const size_t values = all_outputs(chain);
  return (backward ? 2 * values + input_size(chain.stages.front()) : values) * sizeof(T);
}

/// Where in the workspace the output of each stage of one image lies.
template <typename T>
std::vector<T*> stage_outputs(const GroupConvolutionChain& chain, T* workspace) {
  std::vector<T*> outputs;
  for (const Stage& s : chain.stages) {
    outputs.push_back(workspace);
    workspace += output_size(s);
  }
  return outputs;
}

/// One image through all stages, up to but without the output permutation.
template <typename T>
void image_forward(const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters,
                   const std::vector<T*>& outputs) {
  const T* in = bottom;
  for (size_t s = 0; s < chain.stages.size(); ++s) {
    stage_forward(chain.stages[s], in, parameters.weight[s], parameters.bias[s], outputs[s]);
    in = outputs[s];
  }
}

template <typename T>
void forward(const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters, ChainTop<T> top,
             void* workspace) {
  const size_t bottom_size = input_size(chain.stages.front()), top_size = output_size(chain.stages.back());
  const size_t plane = top_size / chain.output_channel.size();
  const std::vector<T*> outputs = stage_outputs(chain, static_cast<T*>(workspace));
  for (int n = 0; n < chain.batch; ++n) {
    image_forward(chain, bottom + n * bottom_size, parameters, outputs);
    for (size_t c = 0; c < chain.output_channel.size(); ++c) {
      const T* from = outputs.back() + chain.output_channel[c] * plane;
      const size_t at = n * top_size + c * plane;
      for (size_t i = 0; i < plane; ++i) {
        const T y = from[i] + (top.residual ? top.residual[at + i] : T(0));
        top.data[at + i] = chain.relu && y < 0 ? T(0) : y;
      }
    }
  }
}

/// What becomes of the convolutions' gradient to one image, which begins at value `at` of the bottom.
template <typename T>
void finish_bottom(size_t at, size_t count, const T* diff, const T* bottom, const ChainGradients<T>& gradients) {
  for (size_t i = 0; i < count; ++i) {
    const T sum = diff[i] + (gradients.skip ? gradients.skip[at + i] : T(0));
    gradients.bottom[at + i] = gradients.bottom_relu && !(bottom[at + i] > 0) ? T(0) : sum;
  }
}

template <typename T>
void backward(const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters,
              const T* top_diff, const ChainGradients<T>& gradients, void* workspace) {
  const size_t bottom_size = input_size(chain.stages.front()), top_size = output_size(chain.stages.back());
  const size_t plane = top_size / chain.output_channel.size();
  T* const values = static_cast<T*>(workspace);
  const std::vector<T*> outputs = stage_outputs(chain, values);
  const std::vector<T*> diffs = stage_outputs(chain, values + all_outputs(chain));
  T* const bottom_diff = gradients.bottom ? values + 2 * all_outputs(chain) : nullptr;
  for (int n = 0; n < chain.batch; ++n) {
    const T* image = bottom + n * bottom_size;
    image_forward(chain, image, parameters, outputs);
    for (size_t c = 0; c < chain.output_channel.size(); ++c) {
      std::copy_n(top_diff + n * top_size + c * plane, plane, diffs.back() + chain.output_channel[c] * plane);
    }
    for (size_t s = chain.stages.size(); s-- > 0;) {
      const Stage& stage = chain.stages[s];
      if (gradients.weight[s]) {
        stage_backward_weight(stage, s > 0 ? outputs[s - 1] : image, diffs[s], gradients.weight[s]);
      }
      if (gradients.bias[s]) stage_backward_bias(stage, diffs[s], gradients.bias[s]);
      T* in_diff = s > 0 ? diffs[s - 1] : bottom_diff;
      if (in_diff) stage_backward_data(stage, parameters.weight[s], diffs[s], in_diff);
    }
    if (bottom_diff) finish_bottom(n * bottom_size, bottom_size, bottom_diff, bottom, gradients);
  }
}

}  // namespace

template <typename T>
GroupConvolutionKernel<T> group_convolution_reference() {
  return {"reference", any_cpu, any_chain, any_chain, workspace_bytes<T>, forward<T>, backward<T>};
}

template GroupConvolutionKernel<float> group_convolution_reference<float>();
template GroupConvolutionKernel<double> group_convolution_reference<double>();

}  // namespace caffe_layers
