#include "caffe_layers/kernels/workspace.hpp"

#include <cstdlib>
#include <memory>
#include <new>

namespace caffe_layers {

void* thread_workspace(std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  thread_local std::unique_ptr<void, decltype(&std::free)> memory(nullptr, std::free);
  thread_local std::size_t capacity = 0;
  if (bytes > capacity) {
    capacity = 0;
    memory.reset();  // the old content need not survive: free it before taking more
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    memory.reset(std::aligned_alloc(kAlignment, rounded));
    if (!memory) throw std::bad_alloc();
    capacity = rounded;
  }
  return memory.get();
}

}  // namespace caffe_layers
