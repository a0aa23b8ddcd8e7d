#include "caffe_layers/kernels/permutation.hpp"

#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

namespace caffe_layers {

namespace {

std::vector<int> interleave_table(std::uint32_t branches, int channels) {
  if (branches == 0 || channels % static_cast<std::int64_t>(branches) != 0) {
    throw std::invalid_argument("interleave is " + std::to_string(branches) +
                                ": must be a number of branches that divides C = " + std::to_string(channels));
  }
  const int width = channels / static_cast<int>(branches);
  std::vector<int> perm;
  for (int j = 0; j < width; ++j) {
    for (int g = 0; g < static_cast<int>(branches); ++g) perm.push_back(g * width + j);
  }
  return perm;
}

std::vector<int> checked_table(const std::vector<std::uint32_t>& index, int channels) {
  const std::string range = "0 .. " + std::to_string(channels - 1);
  const std::string rule = ": each of " + range + " must appear once (C = " + std::to_string(channels) + ")";
  std::vector<int> first_use(channels, -1);
  for (std::size_t c = 0; c < index.size(); ++c) {
    const std::string entry = "index entry " + std::to_string(c) + " is " + std::to_string(index[c]);
    if (index[c] >= static_cast<std::uint32_t>(channels)) throw std::invalid_argument(entry + rule);
    int& first = first_use[index[c]];
    if (first >= 0) throw std::invalid_argument(entry + ", as entry " + std::to_string(first) + " is" + rule);
    first = static_cast<int>(c);
  }
  if (index.size() < static_cast<std::size_t>(channels)) {
    throw std::invalid_argument("index ends before entry " + std::to_string(index.size()) + rule);
  }
  return {index.begin(), index.end()};
}

}  // namespace

std::vector<int> resolve_permutation(const PermutationSpec& spec, int channels) {
  if (spec.interleave && !spec.index.empty()) {
    throw std::invalid_argument("interleave is " + std::to_string(*spec.interleave) + " and index has " +
                                std::to_string(spec.index.size()) + " entries: give one of the two");
  }
  std::vector<int> perm(channels);
  if (spec.interleave) {
    perm = interleave_table(*spec.interleave, channels);
  } else if (!spec.index.empty()) {
    perm = checked_table(spec.index, channels);
  } else {
    std::iota(perm.begin(), perm.end(), 0);
  }
  return spec.inverse ? invert_permutation(perm) : perm;
}

std::vector<int> invert_permutation(const std::vector<int>& perm) {
  std::vector<int> inverse(perm.size());
  for (std::size_t c = 0; c < perm.size(); ++c) inverse[perm[c]] = static_cast<int>(c);
  return inverse;
}

template <typename T>
void permute_channels(const T* bottom, const int* perm, int batch, int channels, std::size_t plane, T* top) {
  const std::ptrdiff_t planes = static_cast<std::ptrdiff_t>(batch) * channels;
#pragma omp parallel for schedule(static)
  for (std::ptrdiff_t p = 0; p < planes; ++p) {
    const std::ptrdiff_t image = p / channels, channel = p % channels;
    std::memcpy(top + p * plane, bottom + (image * channels + perm[channel]) * plane, plane * sizeof(T));
  }
}

template void permute_channels<float>(const float*, const int*, int, int, std::size_t, float*);
template void permute_channels<double>(const double*, const int*, int, int, std::size_t, double*);

}  // namespace caffe_layers
