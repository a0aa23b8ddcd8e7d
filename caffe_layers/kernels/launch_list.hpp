#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

namespace caffe_layers {

/// Launches of kernels in order, all their arguments included, to be started later.
class LaunchList {
 public:
  template <typename... Parameters>
  void add(void (*kernel)(Parameters...), const cudaLaunchConfig_t& config, Parameters... arguments) {
    launches_.push_back({reinterpret_cast<const void*>(kernel), config, offset_.size()});
    (add_argument(arguments), ...);
  }

  bool empty() const { return launches_.empty(); }
  void clear();
  /// The same kernels with the same arguments.
  bool operator==(const LaunchList& other) const;
  /// Starts each launch on its stream.
  cudaError_t start() const;
  /// All launches, one after the other, as a graph.
  cudaError_t make_graph(cudaGraphExec_t* graph) const;
  /// Of the first launch.
  cudaStream_t stream() const { return launches_.front().config.stream; }

 private:
  struct Launch {
    const void* kernel;
    cudaLaunchConfig_t config;
    size_t first_argument;  // in offset_
  };

  template <typename T>
  void add_argument(T argument) {
    static_assert(std::is_trivially_copyable<T>::value, "as kernels' arguments are");
#if defined(__GNUC__) && !defined(__clang__)
    __builtin_clear_padding(&argument);  // so that equal arguments have equal bytes
#endif
    constexpr size_t kAlignment = 16;
    const size_t at = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &argument, sizeof(T));
    offset_.push_back(at);
  }

  /// Addresses of a launch's arguments, as CUDA wants them.
  std::vector<void*> arguments(size_t launch) const;

  std::vector<Launch> launches_;
  std::vector<size_t> offset_;        // of every argument in bytes_
  std::vector<unsigned char> bytes_;  // operator new aligns it to 16
};

/// Where launch() of cuda_launch.cuh puts this thread's launches instead of starting them; null: it starts them.
inline thread_local LaunchList* kept_launches = nullptr;

/// Starts what this thread has kept, and keeps no more of this pass. To be called before memory is freed that kept
/// launches may use.
cudaError_t start_kept_launches();

}  // namespace caffe_layers
