#pragma once

#include <cstddef>

namespace caffe_layers {

/// Scratch memory of at least `bytes` bytes, aligned to 64, that all layers a thread runs share: it grows on demand and
/// its content lasts until the next call. Throws std::bad_alloc.
void* thread_workspace(std::size_t bytes);

}  // namespace caffe_layers
