#pragma once

namespace caffe_layers {

/// Tensors from this size on are written past the caches: the next layer would not find them there anyway, and a line
/// that is written whole need not be read first, which is a third of a copy's traffic.
constexpr int kStreamedBytes = 8 << 20;

}  // namespace caffe_layers
