#pragma once

// In an anonymous namespace instead of std::min and std::max, of which no AVX copy may exist.

namespace caffe_layers {
namespace {

template <typename I>
constexpr I smaller(I a, I b) {
  return a < b ? a : b;
}
template <typename I>
constexpr I larger(I a, I b) {
  return a < b ? b : a;
}
inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace
}  // namespace caffe_layers
