#pragma once

// A 3x3 convolution with stride 1 and a border of one zero, in groups of many channels, by Winograd's algorithm
// (winograd_transforms.hpp): per group 36 products of matrices, each of them inputs x outputs by tiles. Some rows of
// tiles at a time, so that all that lies between pixels and pixels stays in the cache of one core.
//
// The way back to the input is a convolution of the output's gradient with the kernels turned. The gradient to the
// weights is that of the 36 products, all tiles summed up before it is transformed back.

#include <omp.h>

#include "caffe_layers/kernels/simd/jobs.hpp"
#include "caffe_layers/kernels/simd/winograd_jobs.hpp"

namespace caffe_layers {
namespace {

template <typename T>
using WinogradWorkspace = Workspace<WinogradShared<T>, WinogradScratch<T>>;

template <typename T>
size_t winograd_workspace_bytes(const FusedChain& chain, bool backward) {
  return WinogradWorkspace<T>(chain, backward).bytes();
}

template <typename T>
Images<T> bottom_images(const FusedChain& chain, T* data) {
  const FusedStage& stage = chain.stages[0];
  return {{data, static_cast<ptrdiff_t>(stage.in_height) * stage.in_width, stage.input_channel}, stage.in_channels};
}
template <typename T>
Images<T> top_images(const FusedChain& chain, T* data) {
  const FusedStage& stage = chain.stages[0];
  return {{data, static_cast<ptrdiff_t>(stage.in_height) * stage.in_width, chain.output_position}, stage.out_channels};
}

/// The factors of all weights, or of the TURNED ones with the inputs as outputs; called by all threads.
template <typename T, bool TURNED>
void transform_all_weights(const FusedStage& stage, const T* weight, CommonJobs* jobs, T* factors) {
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const int rows = TURNED ? inputs : outputs, columns = TURNED ? outputs : inputs;
  const ptrdiff_t row_stride = kTaps * (TURNED ? 1 : inputs), column_stride = kTaps * (TURNED ? inputs : 1);
  jobs->run(stage.group * rows, [&](ptrdiff_t job) {
    const ptrdiff_t group = job / rows, row = job % rows;
    transform_weight_row<T, TURNED>(weight + kTaps * group * inputs * outputs + row * row_stride, column_stride,
                                    columns, factors + group * factor_count<T>(stage) + row * columns,
                                    matrix_pitch<T>(inputs, outputs));
  });
}

template <typename T>
void winograd_forward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                      const FusedTop<T>& top, void* workspace) {
  const WinogradWorkspace<T> memory(chain, false);
  const WinogradShared<T> shared = memory.shared(workspace);
  const FusedStage& stage = chain.stages[0];
  const TileJobs<T> jobs(chain);
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const Images<const T> in = bottom_images(chain, bottom);
  const Images<T> out = top_images(chain, top.data);
  const bool streamed = is_streamed(top.data, chain.batch * stage.out_channels, stage.out_height, stage.out_width);
  const Finish<T> finish = {top.residual, top.data, chain.relu, streamed, nullptr};
  shared.neighbours.find(jobs.tiles(), jobs.map.columns);
  CommonJobs weights = {};
  ptrdiff_t taken = 0;
#pragma omp parallel num_threads(chain.threads)
  {
    const WinogradScratch<T> scratch = memory.scratch(workspace, omp_get_thread_num());
    transform_all_weights<T, false>(stage, parameters.weight[0], &weights, shared.factors);
    for (ptrdiff_t index; (index = take_job(&taken)) < jobs.count() * stage.group;) {
      const int group = static_cast<int>(index % stage.group);
      const WinogradJob<T> job = {jobs.job(index / stage.group), shared, scratch};
      job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
      job.multiply_tiles(shared.factors + group * factor_count<T>(stage), scratch.inputs, inputs, scratch.outputs,
                         outputs);
      job.transform_back(scratch.outputs, parameters.bias[0], finish, out, group * outputs, outputs);
    }
    end_streams();
  }
}

/// The gradients of one call. Pointers to what was not asked for are null.
template <typename T>
struct WinogradGradients {
  const FusedStage& stage;
  Images<const T> in, out_diff;
  Images<T> in_diff;
  bool streamed;  ///< in_diff
  T *weight, *bias;

  /// Of one group from one job; those of parameters are added to the scratch memory's.
  void add_job(const WinogradJob<T>& job, int group) const {
    const WinogradScratch<T>& scratch = job.scratch;
    const int inputs = stage.group_inputs, outputs = stage.group_outputs;
    if (weight) {
      job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
      job.template transform<OutputGradientTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      job.add_factor_gradients(inputs, outputs);
    }
    if (bias) add_bias_gradients(job.tiles, group, scratch.bias_diff);
    if (in_diff.planes.data) {
      const Finish<T> finish = {nullptr, nullptr, false, streamed, nullptr};
      job.template transform<InputTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      job.multiply_tiles(job.shared.factors + group * factor_count<T>(stage), scratch.outputs, outputs, scratch.inputs,
                         inputs);
      job.transform_back(scratch.inputs, nullptr, finish, in_diff, group * inputs, inputs);
    }
  }

  void add_bias_gradients(const TileRows& tiles, int group, T* bias_diff) const {
    for (int o = group * stage.group_outputs; o < (group + 1) * stage.group_outputs; ++o) {
      const Channel<const T> channel = out_diff.channel(o);
      tiles.for_each([&](ptrdiff_t image, int y) {
        const T* from = channel.row(image, y, stage.out_width);
        const int rows = smaller(kTileOutputs, stage.out_height - y);
        bias_gradient<T>({1, rows * stage.out_width, 0, 0}, 1, &from, bias_diff + o);
      });
    }
  }

  /// One thread's part of the jobs.
  void run_part(const TileJobs<T>& jobs, int part, int parts, const WinogradShared<T>& shared,
                const WinogradScratch<T>& scratch) const {
    const ptrdiff_t kernels = static_cast<ptrdiff_t>(stage.group_inputs) * stage.group_outputs;
    fill(scratch.bias_diff, stage.out_channels, T(0));
    for (int group = 0; group < stage.group; ++group) {
      fill(scratch.factor_diff, factor_count<T>(stage), T(0));
      for (ptrdiff_t j = jobs.count() * part / parts; j < jobs.count() * (part + 1) / parts; ++j) {
        add_job({jobs.job(j), shared, scratch}, group);
      }
      if (weight) {
        transform_back_weights(scratch.factor_diff, matrix_pitch<T>(stage.group_inputs, stage.group_outputs), kernels,
                               scratch.weight_diff + group * kernels * kTaps);
      }
    }
    end_streams();
  }
};

template <typename T>
void winograd_backward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                       const T* top_diff, const FusedGradients<T>& gradients, void* workspace) {
  const WinogradWorkspace<T> memory(chain, true);
  const WinogradShared<T> shared = memory.shared(workspace);
  const FusedStage& stage = chain.stages[0];
  const TileJobs<T> jobs(chain);
  const bool streamed = is_streamed(gradients.bottom, chain.batch * stage.in_channels, stage.in_height, stage.in_width);
  const WinogradGradients<T> wanted = {stage,
                                       bottom_images(chain, bottom),
                                       top_images(chain, top_diff),
                                       bottom_images(chain, gradients.bottom),
                                       streamed,
                                       gradients.weight[0],
                                       gradients.bias[0]};
  shared.neighbours.find(jobs.tiles(), jobs.map.columns);
  CommonJobs transposed = {};
#pragma omp parallel num_threads(chain.threads)
  {
    transform_all_weights<T, true>(stage, parameters.weight[0], &transposed, shared.factors);
#pragma omp for schedule(static, 1) nowait
    for (int part = 0; part < chain.threads; ++part) {
      wanted.run_part(jobs, part, chain.threads, shared, memory.scratch(workspace, part));
    }
  }
  for (int part = 0; part < chain.threads; ++part) {  // always in this order: the same sums every time
    const WinogradScratch<T> scratch = memory.scratch(workspace, part);
    add_part(scratch.weight_diff, weight_count(stage), wanted.weight);
    add_part(scratch.bias_diff, stage.out_channels, wanted.bias);
  }
}

}  // namespace
}  // namespace caffe_layers
