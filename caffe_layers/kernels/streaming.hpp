#pragma once

// Writing large tensors past the caches. In an anonymous namespace, for files compiled for one instruction set include
// it.

namespace caffe_layers {
namespace {

/// Tensors from this size on are written past the caches: the next layer would not find them there anyway, and a line
/// that is written whole need not be read first, which is a third of a copy's traffic.
constexpr int kStreamedBytes = 8 << 20;

/// Makes what this thread streamed visible to the others.
inline void end_streams() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace
}  // namespace caffe_layers
