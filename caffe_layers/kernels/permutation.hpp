#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace caffe_layers {

/// A channel permutation as a prototxt gives it (ChannelPermutationParameter).
struct PermutationSpec {
  /// Number of branches G: perm[j * G + g] = g * (C / G) + j, as between the group convolutions of Figure 1.
  std::optional<std::uint32_t> interleave;
  /// perm itself, where no interleave is given; empty means the identity.
  std::vector<std::uint32_t> index;
  /// Take the inverse of the above.
  bool inverse = false;
};

/// The table perm of a permutation of `channels` channels: output channel c is input channel perm[c].
/// Throws std::invalid_argument with the field, its value and what would be right.
std::vector<int> resolve_permutation(const PermutationSpec& spec, int channels);

std::vector<int> invert_permutation(const std::vector<int>& perm);

/// top[n][c] = bottom[n][perm[c]] for tensors of batch x channels planes of `plane` values each; perm has `channels`
/// entries. The tensors must not overlap.
template <typename T>
void permute_channels(const T* bottom, const int* perm, int batch, int channels, std::size_t plane, T* top);

}  // namespace caffe_layers
