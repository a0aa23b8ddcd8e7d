// Rows of the kernel table for the fused kernels: turns a chain into the plain description that they read.

#include <omp.h>

#include <cstddef>

#include "caffe_layers/kernels/cpu.hpp"
#include "caffe_layers/kernels/group_convolution_fused_table.hpp"

namespace caffe_layers {
namespace {

bool is_permutation(const std::vector<int>& order, int channels) {
  std::vector<char> seen(channels, 0);
  for (int c : order) {
    if (c < 0 || c >= channels || seen[c]++) return false;
  }
  return static_cast<int>(order.size()) == channels;
}

}  // namespace

FusedDescription::FusedDescription(const GroupConvolutionChain& chain) : output_position_(chain.output_channel.size()) {
  for (const GroupConvolutionStage& s : chain.stages) {
    stages_.push_back({s.in_channels, s.out_channels, s.group, s.in_channels / s.group, s.out_channels / s.group,
                       s.kernel, s.stride, s.pad, s.dilation, s.in_height, s.in_width, s.out_height, s.out_width,
                       s.input_channel.data()});
  }
  for (size_t c = 0; c < output_position_.size(); ++c) output_position_[chain.output_channel[c]] = static_cast<int>(c);
  chain_ = {chain.batch,    static_cast<int>(stages_.size()), omp_get_max_threads(),
            stages_.data(), output_position_.data(),          chain.relu};
}

bool fused_supports(const GroupConvolutionChain& chain) {
  int channels = chain.stages.empty() ? 0 : chain.stages[0].in_channels;
  for (const GroupConvolutionStage& stage : chain.stages) {
    if (stage.stride > kFusedMaxStride || !is_permutation(stage.input_channel, channels)) return false;
    channels = stage.out_channels;
  }
  return !chain.stages.empty() && chain.stages.size() <= kFusedMaxStages &&
         is_permutation(chain.output_channel, channels);
}

bool winograd_supports(const GroupConvolutionChain& chain) {
  if (!fused_supports(chain) || chain.stages.size() > 1) return false;
  const GroupConvolutionStage& stage = chain.stages[0];
  return stage.kernel == 3 && stage.stride == 1 && stage.pad == 1 && stage.dilation == 1;
}

// Measured. Few channels do not pay for the transforms of tiles, few tiles not for those of weights, few
// multiplications not for what every call takes; and of maps of one or two rows most of a tile is empty.
bool winograd_pays(const GroupConvolutionChain& chain) {
  const GroupConvolutionStage& stage = chain.stages[0];
  const ptrdiff_t inputs = stage.in_channels / stage.group, outputs = stage.out_channels / stage.group;
  const ptrdiff_t tiles =
      static_cast<ptrdiff_t>(chain.batch) * ((stage.in_height + 3) / 4) * ((stage.in_width + 3) / 4);
  return inputs >= 8 && outputs >= 8 && tiles >= 16 && tiles * inputs * outputs >= 4096 && stage.in_height > 2;
}

template <typename T, FusedKernel<T> (*winograd)()>
GroupConvolutionKernel<T> winograd_row(const char* name, bool (*runs_here)()) {
  return fused_row<T, winograd>(name, runs_here, winograd_supports, winograd_pays);
}

template <typename T>
std::vector<GroupConvolutionKernel<T>> fused_group_convolution_kernels() {
  return {
#if defined(__x86_64__)
    winograd_row<T, winograd_avx512<T>>("winograd-avx512", cpu_has_avx512),
        fused_row<T, fused_avx512<T>>("avx512", cpu_has_avx512),
        winograd_row<T, winograd_avx2<T>>("winograd-avx2", cpu_has_avx2),
        fused_row<T, fused_avx2<T>>("avx2", cpu_has_avx2),
#endif
        winograd_row<T, winograd_portable<T>>("winograd-portable", any_cpu),
        fused_row<T, fused_portable<T>>("portable", any_cpu)
  };
}
template std::vector<GroupConvolutionKernel<float>> fused_group_convolution_kernels();
template std::vector<GroupConvolutionKernel<double>> fused_group_convolution_kernels();

}  // namespace caffe_layers
