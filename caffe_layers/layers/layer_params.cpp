#include "caffe_layers/layer_params.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>

#include "caffe_layers/kernels/permutation.hpp"

namespace caffe {

namespace {

using caffe_layers::GroupConvolutionChain;
using caffe_layers::GroupConvolutionStage;
using std::string;
using std::to_string;

/// Throws unless `condition`: "<field> is <value>: <advice>".
void require(bool condition, const string& field, int64_t value, const string& advice) {
  if (!condition) throw std::invalid_argument(field + " is " + to_string(value) + ": " + advice);
}

/// At most this, so that places in an input, in pixels, can be computed in 32 bits.
constexpr uint32_t kMost = (1u << 29) - 1;

int positive(uint32_t value, const string& field) {
  require(value > 0 && value <= kMost, field, value, "must be at least 1 and below 2^29");
  return static_cast<int>(value);
}

/// Height or width of a stage's output.
int output_extent(const GroupConvolutionStage& stage, int input, const string& axis) {
  const int64_t span = int64_t(stage.dilation) * (stage.kernel - 1) + 1;
  const int64_t padded = input + 2 * int64_t(stage.pad);
  require(padded >= span, "output " + axis, 0,
          "kernel_size " + to_string(stage.kernel) + " with dilation " + to_string(stage.dilation) + " spans " +
              to_string(span) + ", but the input's " + axis + " is " + to_string(input) + " and pad " +
              to_string(stage.pad) + "; pad must be at least " + to_string((span - input + 1) / 2));
  const int64_t extent = (padded - span) / stage.stride + 1;
  require(extent <= INT32_MAX, "output " + axis, extent, "must be below 2^31; pad is " + to_string(stage.pad));
  return static_cast<int>(extent);
}

/// a * b, which must be below 2^31, as Caffe counts values.
int64_t product(int64_t a, int64_t b, const string& field) {
  require(a * b <= INT32_MAX, field, a * b, "must be below 2^31");
  return a * b;
}

GroupConvolutionStage stage_from_param(const FusedGroupConvolutionParameter::Stage& param, int channels, int height,
                                       int width) {
  GroupConvolutionStage stage;
  stage.in_channels = channels;
  stage.in_height = height;
  stage.in_width = width;
  stage.out_channels = positive(param.num_output(), "num_output");
  stage.group = positive(param.group(), "group");
  stage.kernel = positive(param.kernel_size(), "kernel_size");
  stage.stride = positive(param.stride(), "stride");
  stage.dilation = positive(param.dilation(), "dilation");
  require(param.pad() <= kMost, "pad", param.pad(), "must be below 2^29");
  stage.pad = static_cast<int>(param.pad());
  stage.bias = param.bias_term();
  require(stage.kernel % 2 == 1, "kernel_size", stage.kernel, "must be odd");
  require(channels % stage.group == 0, "group", stage.group,
          "must divide the stage's " + to_string(channels) + " input channels");
  require(stage.out_channels % stage.group == 0, "group", stage.group,
          "must divide the stage's num_output " + to_string(stage.out_channels));
  try {
    stage.input_channel = permutation_from_param(param.permutation(), channels);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(string("permutation.") + error.what());
  }
  stage.out_height = output_extent(stage, height, "height");
  stage.out_width = output_extent(stage, width, "width");
  product(stage.out_height, stage.out_width, "output height x width");
  const int64_t taps = product(stage.kernel, stage.kernel, "kernel_size x kernel_size");
  product(product(taps, channels / stage.group, "weights of an output"), stage.out_channels, "number of weights");
  return stage;
}

}  // namespace

std::vector<int> permutation_from_param(const ChannelPermutationParameter& param, int channels) {
  caffe_layers::PermutationSpec spec;
  if (param.has_interleave()) spec.interleave = param.interleave();
  spec.index.assign(param.index().begin(), param.index().end());
  spec.inverse = param.inverse();
  return caffe_layers::resolve_permutation(spec, channels);
}

GroupConvolutionChain chain_from_param(const FusedGroupConvolutionParameter& param, int batch, int channels, int height,
                                       int width) {
  if (param.stage_size() == 0) {
    throw std::invalid_argument(
        "fused_group_convolution_param has 0 stages: give at least one `stage { num_output: ... }`");
  }
  GroupConvolutionChain chain;
  chain.batch = batch;
  chain.relu = param.relu();
  for (int s = 0; s < param.stage_size(); ++s) {
    const string where = "stage " + to_string(s + 1) + " of " + to_string(param.stage_size());
    try {
      chain.stages.push_back(stage_from_param(param.stage(s), channels, height, width));
    } catch (const std::invalid_argument& error) {
      const string source = s == 0 ? "" : " (its input is the output of stage " + to_string(s) + ")";
      throw std::invalid_argument(where + ": " + error.what() + source);
    }
    channels = chain.stages.back().out_channels;
    height = chain.stages.back().out_height;
    width = chain.stages.back().out_width;
  }
  product(product(int64_t(height) * width, channels, "number of values of an output image"), batch,
          "number of values of the output");
  try {
    chain.output_channel = permutation_from_param(param.output_permutation(), channels);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(string("output_permutation.") + error.what());
  }
  return chain;
}

}  // namespace caffe
