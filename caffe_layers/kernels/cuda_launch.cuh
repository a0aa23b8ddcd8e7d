#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "caffe_layers/kernels/launch_list.hpp"

namespace caffe_layers {

/// Threads per block of all our kernels.
constexpr int kThreads = 256;

/// Shared memory that a kernel may use without asking for it (CUDA Programming Guide, compute capabilities).
constexpr size_t kDefaultSharedBytes = 48 * 1024;

/// An attribute of the calling thread's current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

/// Is everything compiled for GPUs that can start a kernel while the one in front of it ends?
#ifdef __CUDA_ARCH_LIST__
constexpr bool all_start_early() {
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    if (architecture < 900) return false;
  }
  return true;
}
#else
constexpr bool all_start_early() { return false; }
#endif

/// In a kernel of launch_early() in front of everything that reads or writes global memory: waits until all kernels
/// before it have ended.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets blocks of the next kernel, if it is one of launch_early(), take the place of this one's as they end.
__device__ __forceinline__ void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Starts `kernel` on the stream, or keeps it to be started later (launch_graphs.hpp). As usual with kernels, errors
/// stay readable through cudaPeekAtLastError(). All work on a device goes through here. An ordinary function instead of
/// <<<>>>, so that tests can compile the same source for the host. EARLY: see launch_early().
template <bool EARLY = false, typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, size_t shared_bytes, cudaStream_t stream,
            const Arguments&... arguments) {
  if (shared_bytes > kDefaultSharedBytes) {
    // All that the device has: a kept launch starts after later ones of its kernel have set this anew. Per device, so
    // it is set at every launch rather than remembered.
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                         device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = blocks;
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  if (kept_launches) {
    kept_launches->add(kernel, config, static_cast<Parameters>(arguments)...);
    return;
  }
  cudaLaunchAttribute attribute;
  if (EARLY) {
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

/// As launch(), for a kernel that begins with wait_for_earlier_kernels(): its blocks may be there before the kernels in
/// front of it have ended (programmatic dependent launch). Of kept launches and in graphs they are not.
template <typename... Parameters, typename... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 blocks, size_t shared_bytes, cudaStream_t stream,
                  const Arguments&... arguments) {
  launch<all_start_early()>(kernel, blocks, shared_bytes, stream, arguments...);
}

template <typename Int>
__host__ __device__ constexpr Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}

/// Division by a number known at launch, without the device's long division (Granlund and Montgomery 1994, figure 4.1).
struct Divisor {
  unsigned divisor = 1, multiplier = 1, shift = 0;

  Divisor() = default;
  explicit Divisor(unsigned by) : divisor(by) {
    while ((1u << shift) < by) ++shift;
    multiplier = static_cast<unsigned>((((1ull << shift) - by) << 32) / by + 1);
  }
  /// For n below 2^31.
  __host__ __device__ __forceinline__ unsigned quotient(unsigned n) const {
    return (static_cast<unsigned>(static_cast<unsigned long long>(n) * multiplier >> 32) + n) >> shift;
  }
  /// The quotient, *n becoming the remainder.
  __host__ __device__ __forceinline__ unsigned divide(unsigned* n) const {
    const unsigned q = quotient(*n);
    *n -= q * divisor;
    return q;
  }
};

/// WIDTH values that are loaded and stored at once.
template <typename T, int WIDTH>
struct alignas(WIDTH * sizeof(T)) Pack {
  static constexpr int size = WIDTH;
  T at[WIDTH];
};

template <int WIDTH, typename T>
__device__ __forceinline__ Pack<T, WIDTH> load(const T* from) {
  return *reinterpret_cast<const Pack<T, WIDTH>*>(from);
}

template <int WIDTH, typename T>
__device__ __forceinline__ void store(T* to, const Pack<T, WIDTH>& value) {
  *reinterpret_cast<Pack<T, WIDTH>*>(to) = value;
}

/// 16 bytes, the widest load and store.
template <typename T>
using Vector = Pack<T, static_cast<int>(16 / sizeof(T))>;

template <typename T>
__host__ __device__ bool is_vector_aligned(const T* pointer) {
  return reinterpret_cast<size_t>(pointer) % sizeof(Vector<T>) == 0;
}

template <typename T>
__device__ __forceinline__ Vector<T> load_vector(const T* from) {
  return load<Vector<T>::size>(from);
}

/// To shared memory. The compiler would store each value by itself, four times the traffic.
__device__ __forceinline__ void store_shared_vector(float* to, const Vector<float>& value) {
#ifdef __CUDA_ARCH__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(value.at[0]), "f"(value.at[1]),
               "f"(value.at[2]), "f"(value.at[3])
               : "memory");
#else
  store(to, value);
#endif
}
__device__ __forceinline__ void store_shared_vector(double* to, const Vector<double>& value) {
#ifdef __CUDA_ARCH__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("st.shared.v2.f64 [%0], {%1, %2};" ::"r"(address), "d"(value.at[0]), "d"(value.at[1]) : "memory");
#else
  store(to, value);
#endif
}

/// The block's dynamic shared memory.
template <typename T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

}  // namespace caffe_layers
