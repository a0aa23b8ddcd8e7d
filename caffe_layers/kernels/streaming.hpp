#pragma once

// Writing large tensors past the caches. In an anonymous namespace, for files compiled for one instruction set include
// it.

namespace caffe_layers {
namespace {

/// Tensors from this size on are written past the caches: a line that is written whole need not be read first, which is
/// a third of a copy's traffic, and in a net the memory written to was last used so long ago that it is in no cache.
/// The next layer would find a small tensor there, but fetches it while it computes.
constexpr int kStreamedBytes = 2 << 20;

/// Makes what this thread streamed visible to the others.
inline void end_streams() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

}  // namespace
}  // namespace caffe_layers
