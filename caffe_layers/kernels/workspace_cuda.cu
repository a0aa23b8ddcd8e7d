#include <cuda_runtime.h>

#include <map>
#include <stdexcept>
#include <string>

#include "caffe_layers/kernels/launch_list.hpp"
#include "caffe_layers/kernels/workspace_cuda.hpp"

namespace caffe_layers {

void* device_workspace(size_t bytes, const std::string& user) {
  struct Memory {
    void* address = nullptr;
    size_t capacity = 0;
  };
  // Never freed at the end: by then the driver may be gone.
  thread_local std::map<int, Memory> of_device;
  int device = 0;
  cudaGetDevice(&device);
  Memory& memory = of_device[device];
  if (bytes > memory.capacity) {
    start_kept_launches();  // they use the memory; errors stay readable through cudaPeekAtLastError()
    cudaFree(memory.address);
    memory = {};
    if (cudaMalloc(&memory.address, bytes) != cudaSuccess) {
      const size_t megabytes = (bytes + (1 << 20) - 1) >> 20;
      throw std::runtime_error(user + "the GPU has no " + std::to_string(megabytes) +
                               " MB left for its workspace: use smaller batches");
    }
    memory.capacity = bytes;
  }
  return memory.address;
}

}  // namespace caffe_layers
