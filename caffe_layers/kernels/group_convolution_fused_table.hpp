#pragma once

#include <vector>

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/group_convolution_kernels.hpp"

namespace caffe_layers {

/// A chain in the plain terms that the fused kernels read.
class FusedDescription {
 public:
  explicit FusedDescription(const GroupConvolutionChain& chain);
  operator const FusedChain&() const { return chain_; }

 private:
  std::vector<FusedStage> stages_;
  std::vector<int> output_position_;
  FusedChain chain_;
};

/// Whether the fused kernels take the chain.
bool fused_supports(const GroupConvolutionChain& chain);

/// Whether Winograd's algorithm takes it, a single 3x3 convolution; and whether it has enough channels and pixels.
bool winograd_supports(const GroupConvolutionChain& chain);
bool winograd_pays(const GroupConvolutionChain& chain);

/// A fused kernel as a row of the kernel table.
template <typename T, FusedKernel<T> (*fused)()>
GroupConvolutionKernel<T> fused_row(const char* name, bool (*runs_here)(),
                                    bool (*supports)(const GroupConvolutionChain&) = fused_supports,
                                    bool (*pays)(const GroupConvolutionChain&) = any_chain) {
  return {
      name,
      runs_here,
      supports,
      pays,
      [](const GroupConvolutionChain& chain, bool backward) {
        return fused().workspace_bytes(FusedDescription(chain), backward);
      },
      [](const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters, ChainTop<T> top,
         void* workspace) {
        fused().forward(FusedDescription(chain), bottom, {parameters.weight.data(), parameters.bias.data()},
                        {top.data, top.residual}, workspace);
      },
      [](const GroupConvolutionChain& chain, const T* bottom, const ChainParameters<T>& parameters, const T* top_diff,
         const ChainGradients<T>& gradients, void* workspace) {
        fused().backward(
            FusedDescription(chain), bottom, {parameters.weight.data(), parameters.bias.data()}, top_diff,
            {gradients.bottom, gradients.skip, gradients.bottom_relu, gradients.weight.data(), gradients.bias.data()},
            workspace);
      }};
}

/// The fused kernels' rows of the kernel table, fastest first.
template <typename T>
std::vector<GroupConvolutionKernel<T>> fused_group_convolution_kernels();

}  // namespace caffe_layers
