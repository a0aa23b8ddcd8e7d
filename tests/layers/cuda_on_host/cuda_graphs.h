// CUDA graphs of cuda_runtime.h: kernels one after the other, nothing else.
#pragma once

#include "cuda_runtime.h"

struct cudaKernelNodeParams {
  void* func;
  dim3 gridDim, blockDim;
  unsigned sharedMemBytes;
  void** kernelParams;
};
struct GraphOnHost {
  std::vector<std::function<void()>> nodes;
};
using cudaGraph_t = GraphOnHost*;
using cudaGraphExec_t = GraphOnHost*;
using cudaGraphNode_t = size_t*;
inline cudaError_t cudaGraphCreate(cudaGraph_t* graph, unsigned) {
  *graph = new GraphOnHost;
  return cudaSuccess;
}
inline cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* node, cudaGraph_t graph, const cudaGraphNode_t* before,
                                          size_t count, const cudaKernelNodeParams* params) {
  if (count != (graph->nodes.empty() ? 0 : 1)) cuda_on_host::fail("a graph that is no chain");
  if (count == 1 && *reinterpret_cast<const size_t*>(before) != graph->nodes.size()) {
    cuda_on_host::fail("a node that does not follow the last one");
  }
  cuda_on_host::check_shared_memory(params->func, params->sharedMemBytes);
  const cudaLaunchConfig_t config = {params->gridDim, params->blockDim, params->sharedMemBytes, nullptr};
  const std::function<void()> kernel = cuda_on_host::bind_untyped(params->func, params->kernelParams);
  graph->nodes.push_back([config, kernel] { cuda_on_host::run_grid(config, kernel); });
  *node = reinterpret_cast<cudaGraphNode_t>(graph->nodes.size());
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new GraphOnHost(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  ++cuda_on_host::graph_launches;
  for (const auto& node : graph->nodes) node();
  return cudaSuccess;
}
