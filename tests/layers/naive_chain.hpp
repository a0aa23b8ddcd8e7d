#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_kernels.hpp"
#include "device_test.hpp"

namespace caffe_layers_test {

using caffe_layers::GroupConvolutionChain;
using caffe_layers::GroupConvolutionStage;

/// Everything a chain reads, and everything backward can write.
template <typename T>
struct ChainData {
  std::vector<T> bottom, top_diff;
  std::vector<std::vector<T>> weight, bias;

  caffe_layers::ChainParameters<T> parameters() const {
    caffe_layers::ChainParameters<T> p;
    for (const auto& w : weight) p.weight.push_back(w.data());
    for (const auto& b : bias) p.bias.push_back(b.empty() ? nullptr : b.data());
    return p;
  }
};

template <typename T>
struct ChainResults {
  std::vector<T> top, bottom_diff;
  std::vector<std::vector<T>> weight_diff, bias_diff;
};

inline size_t bottom_count(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages.front();
  return size_t(chain.batch) * s.in_channels * s.in_height * s.in_width;
}

inline size_t top_count(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& s = chain.stages.back();
  return size_t(chain.batch) * s.out_channels * s.out_height * s.out_width;
}

inline size_t weight_count(const GroupConvolutionStage& s) {
  return size_t(s.out_channels) * (s.in_channels / s.group) * s.kernel * s.kernel;
}

/// Random values, the same for float and double.
template <typename T>
ChainData<T> random_chain_data(const GroupConvolutionChain& chain, unsigned seed) {
  ChainData<T> data;
  data.bottom = random_values<T>(bottom_count(chain), seed);
  data.top_diff = random_values<T>(top_count(chain), seed + 1);
  for (const GroupConvolutionStage& s : chain.stages) {
    data.weight.push_back(random_values<T>(weight_count(s), ++seed + 1));
    data.bias.push_back(random_values<T>(s.bias ? s.out_channels : 0, ++seed + 1));
  }
  return data;
}

/// Calls visit(input index, weight index, output index) for each pair of an input and a weight that meet: unlike the
/// reference it goes through the inputs (already permuted) and looks for the output each one adds to.
template <typename Visit>
void naive_products(const GroupConvolutionStage& s, int batch, Visit visit) {
  const int group_in = s.in_channels / s.group, group_out = s.out_channels / s.group;
  size_t input = 0;
  for (int n = 0; n < batch; ++n)
    for (int c = 0; c < s.in_channels; ++c)
      for (int h = 0; h < s.in_height; ++h)
        for (int w = 0; w < s.in_width; ++w, ++input)
          for (int k = 0; k < group_out * s.kernel * s.kernel; ++k) {
            const int o = c / group_in * group_out + k / (s.kernel * s.kernel);
            const int ky = k / s.kernel % s.kernel, kx = k % s.kernel;
            const int y = h + s.pad - ky * s.dilation, x = w + s.pad - kx * s.dilation;
            if (y < 0 || x < 0 || y % s.stride || x % s.stride) continue;
            if (y / s.stride >= s.out_height || x / s.stride >= s.out_width) continue;
            const size_t weight = ((size_t(o) * group_in + c % group_in) * s.kernel + ky) * s.kernel + kx;
            visit(input, weight,
                  ((size_t(n) * s.out_channels + o) * s.out_height + y / s.stride) * s.out_width + x / s.stride);
          }
}

/// to[n][c] = from[n][perm[c]], or with `back` the transpose to[n][perm[c]] = from[n][c].
inline std::vector<double> naive_permute(const std::vector<double>& from, const std::vector<int>& perm, int batch,
                                         bool back) {
  const size_t plane = from.size() / batch / perm.size();
  std::vector<double> to(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    const size_t n = i / plane / perm.size(), c = i / plane % perm.size();
    const size_t j = (n * perm.size() + perm[c]) * plane + i % plane;
    (back ? to[j] : to[i]) = back ? from[i] : from[j];
  }
  return to;
}

/// Forward and all gradients in double precision.
inline ChainResults<double> naive_chain(const GroupConvolutionChain& chain, const ChainData<double>& data) {
  ChainResults<double> results;
  std::vector<std::vector<double>> inputs;
  std::vector<double> x = data.bottom;
  for (size_t i = 0; i < chain.stages.size(); ++i) {
    const GroupConvolutionStage& s = chain.stages[i];
    inputs.push_back(naive_permute(x, s.input_channel, chain.batch, false));
    const size_t plane = size_t(s.out_height) * s.out_width;
    x.assign(chain.batch * s.out_channels * plane, 0);
    for (size_t j = 0; s.bias && j < x.size(); ++j) x[j] = data.bias[i][j / plane % s.out_channels];
    naive_products(s, chain.batch,
                   [&](size_t in, size_t w, size_t out) { x[out] += inputs[i][in] * data.weight[i][w]; });
  }
  results.top = naive_permute(x, chain.output_channel, chain.batch, false);
  results.weight_diff.resize(chain.stages.size());
  results.bias_diff.resize(chain.stages.size());
  std::vector<double> diff = naive_permute(data.top_diff, chain.output_channel, chain.batch, true);
  for (size_t i = chain.stages.size(); i-- > 0;) {
    const GroupConvolutionStage& s = chain.stages[i];
    std::vector<double> input_diff(inputs[i].size());
    std::vector<double>& weight_diff = results.weight_diff[i];
    weight_diff.resize(data.weight[i].size());
    results.bias_diff[i].resize(data.bias[i].size());
    const size_t plane = size_t(s.out_height) * s.out_width;
    for (size_t j = 0; s.bias && j < diff.size(); ++j) results.bias_diff[i][j / plane % s.out_channels] += diff[j];
    naive_products(s, chain.batch, [&](size_t in, size_t w, size_t out) {
      input_diff[in] += diff[out] * data.weight[i][w];
      weight_diff[w] += diff[out] * inputs[i][in];
    });
    diff = naive_permute(input_diff, s.input_channel, chain.batch, true);
  }
  results.bottom_diff = diff;
  return results;
}

}  // namespace caffe_layers_test
