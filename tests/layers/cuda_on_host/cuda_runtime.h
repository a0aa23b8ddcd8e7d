// Stands in for CUDA's header where a test compiles our .cu files for the host: an emulation of blocks, threads,
// barriers, shuffles and shared memory on one CPU thread. It shows that the kernels' indices, barriers and arithmetic
// are right, and nothing about a device's compiler, memory model or speed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace cuda_on_host {

/// In which order a block's threads run between two barriers; shuffled, some warps also run only when the others wait
/// for them. A missing barrier shows as a result that depends on it.
enum class Order { kForward, kBackward, kShuffled };
inline Order order = Order::kForward;
/// What cudaDeviceGetAttribute tells.
inline int shared_bytes_per_block = 227 * 1024;
inline int multiprocessors = 4;
/// What one cudaMalloc may take.
inline size_t device_bytes = size_t(1) << 32;

constexpr int kMaxThreads = 1024;
constexpr int kLanes = 32;
constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kGuardBytes = 4096;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "cuda_on_host: block (%u, %u): %s\n", blockIdx.x, blockIdx.y, what);
  std::abort();
}

/// Runs one block: every thread is a fiber, which a barrier suspends. Fibers begin by makecontext and change by
/// _setjmp and _longjmp, which need no system call.
class Block {
 public:
  void run(int threads, const std::function<void()>& body) {
    body_ = &body;
    threads_ = threads;
    while (static_cast<int>(stacks_.size()) < threads) add_fiber();
    std::vector<int> turn(threads);
    std::iota(turn.begin(), turn.end(), 0);
    if (order == Order::kBackward) std::reverse(turn.begin(), turn.end());
    std::mt19937 random(blockIdx.x);
    const unsigned slow_warps = order == Order::kShuffled ? random() : 0;
    std::fill(state_, state_ + threads, kReady);
    do {
      if (order == Order::kShuffled) std::shuffle(turn.begin(), turn.end(), random);
      const auto may_run = [&](int t) { return state_[t] == kReady && (slow_warps >> (t / kLanes) & 1) == 0; };
      const bool fast = std::any_of(turn.begin(), turn.end(), may_run);
      for (int t : turn) {
        if (fast ? may_run(t) : state_[t] == kReady) resume(t);
      }
    } while (release());
  }

  void block_barrier() { suspend(kAtBlockBarrier); }

  /// What `source_lane` of the calling thread's warp passes.
  template <typename T>
  T exchange(T value, int source_lane) {
    const int first = current_ / kLanes * kLanes;
    std::memcpy(&slot_[current_], &value, sizeof(T));
    suspend(kAtWarpBarrier);
    T result;
    std::memcpy(&result, &slot_[first + source_lane], sizeof(T));
    suspend(kAtWarpBarrier);  // until all lanes have read
    return result;
  }

 private:
  enum State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

  static void entry();

  /// Starts a fiber and lets it wait for its first block.
  void add_fiber() {
    current_ = static_cast<int>(stacks_.size());
    stacks_.emplace_back(new char[kStackBytes]);
    ucontext_t context, here;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks_.back().get();
    context.uc_stack.ss_size = kStackBytes;
    makecontext(&context, &Block::entry, 0);
    if (_setjmp(scheduler_) == 0) swapcontext(&here, &context);
  }

  void resume(int t) {
    current_ = t;
    threadIdx = dim3(t, 0, 0);
    if (_setjmp(scheduler_) == 0) _longjmp(fiber_[t], 1);
  }

  void suspend(State why) {
    const int self = current_;
    state_[self] = why;
    if (_setjmp(fiber_[self]) == 0) _longjmp(scheduler_, 1);
  }

  int count(int first, int last, State state) const {
    return static_cast<int>(std::count(state_ + first, state_ + last, state));
  }

  /// Lets those go on who all arrived at their barrier; false when all threads have ended.
  bool release() {
    if (count(0, threads_, kDone) == threads_) return false;
    bool released = count(0, threads_, kReady) > 0;
    for (int first = 0; first < threads_; first += kLanes) {
      const int last = std::min(first + kLanes, threads_);
      if (count(first, last, kAtWarpBarrier) != last - first) continue;
      std::fill(state_ + first, state_ + last, kReady);
      released = true;
    }
    if (!released && count(0, threads_, kAtBlockBarrier) == threads_) {
      std::fill(state_, state_ + threads_, kReady);
      released = true;
    }
    if (!released) fail("some threads of a block never arrive at a barrier or shuffle");
    return true;
  }

  const std::function<void()>* body_ = nullptr;
  int threads_ = 0, current_ = 0;
  State state_[kMaxThreads];
  jmp_buf scheduler_, fiber_[kMaxThreads];
  double slot_[kMaxThreads];
  std::vector<std::unique_ptr<char[]>> stacks_;
};
inline Block block;

inline void Block::entry() {
  for (;;) {
    block.suspend(kDone);
    (*block.body_)();
  }
}

}  // namespace cuda_on_host

namespace caffe_layers {  // where shared_memory() looks for it
alignas(16) inline unsigned char dynamic_shared_memory[227 * 1024 + cuda_on_host::kGuardBytes];
}

inline void __syncthreads() { cuda_on_host::block.block_barrier(); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_on_host::block.exchange(value, static_cast<int>(threadIdx.x % cuda_on_host::kLanes) ^ mask);
}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return cuda_on_host::block.exchange(value, lane);
}
/// Lanes without a neighbour there get their own value.
template <typename T>
T __shfl_up_sync(unsigned, T value, int distance) {
  const int lane = static_cast<int>(threadIdx.x % cuda_on_host::kLanes);
  return cuda_on_host::block.exchange(value, lane < distance ? lane : lane - distance);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const int lane = static_cast<int>(threadIdx.x % cuda_on_host::kLanes);
  return cuda_on_host::block.exchange(value, lane + distance < cuda_on_host::kLanes ? lane + distance : lane);
}

namespace cuda_on_host {

inline int launches = 0, graph_launches = 0;

/// Dynamic shared memory that cudaFuncSetAttribute last allowed each kernel.
inline std::map<const void*, size_t> shared_limit;

inline void check_shared_memory(const void* kernel, size_t bytes) {
  constexpr size_t kDefault = 48 * 1024;
  const auto limit = shared_limit.find(kernel);
  if (bytes > (limit == shared_limit.end() ? kDefault : limit->second)) fail("more shared memory than it was allowed");
}

/// Runs all blocks of a launch.
inline void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  constexpr unsigned char kNan = 0xff;  // four or eight of them; shared memory is not cleared, nor used past its end
  unsigned char* shared = caffe_layers::dynamic_shared_memory;
  unsigned char* shared_end = shared + config.dynamicSmemBytes + kGuardBytes;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  if (gridDim.x == 0 || gridDim.y == 0) fail("empty grid");
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = dim3(x, y, 0);
      std::fill(shared, shared_end, kNan);
      block.run(blockDim.x, kernel);
      if (std::any_of(shared + config.dynamicSmemBytes, shared_end, [](unsigned char c) { return c != kNan; })) {
        fail("writes past its shared memory");
      }
    }
  }
}

/// Calls of a kernel whose type is forgotten, with copies of the arguments at these addresses.
using Bind = std::function<std::function<void()>(void** arguments)>;
/// Of every kernel that was launched by its type at least once.
inline std::map<const void*, Bind> kernels;

template <typename... Parameters, size_t... I>
std::function<void()> bind(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
  const std::tuple<Parameters...> copies(*static_cast<Parameters*>(arguments[I])...);
  return [kernel, copies] { std::apply(kernel, copies); };
}

inline std::function<void()> bind_untyped(const void* kernel, void** arguments) {
  if (kernels.count(kernel) == 0) fail("a kernel that was never launched by its type");
  return kernels[kernel](arguments);
}

}  // namespace cuda_on_host

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  cuda_on_host::kernels[reinterpret_cast<const void*>(kernel)] = [kernel](void** addresses) {
    return cuda_on_host::bind(kernel, addresses, std::index_sequence_for<Parameters...>());
  };
  ++cuda_on_host::launches;
  cuda_on_host::check_shared_memory(reinterpret_cast<const void*>(kernel), config->dynamicSmemBytes);
  cuda_on_host::run_grid(*config, [&] { kernel(arguments...); });
  return cudaSuccess;
}
inline cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void** arguments) {
  ++cuda_on_host::launches;
  cuda_on_host::check_shared_memory(kernel, config->dynamicSmemBytes);
  cuda_on_host::run_grid(*config, cuda_on_host::bind_untyped(kernel, arguments));
  return cudaSuccess;
}

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes > cuda_on_host::shared_bytes_per_block) cuda_on_host::fail("more shared memory than there is");
  cuda_on_host::shared_limit[kernel] = bytes;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? cuda_on_host::multiprocessors
                                                       : cuda_on_host::shared_bytes_per_block;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** address, size_t bytes) {
  *address = bytes <= cuda_on_host::device_bytes ? std::malloc(bytes) : nullptr;
  return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* address) {
  std::free(address);
  return cudaSuccess;
}

#include "cuda_graphs.h"
