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

/// The factors of rows first .. first + count - 1 of a group's weights: of outputs, or of inputs if TURNED; in matrices
/// `pitch` apart.
template <typename T, bool TURNED>
void transform_weight_rows(const FusedStage& stage, const T* weight, int group, int first, int count, T* factors,
                           ptrdiff_t pitch) {
  const int inputs = stage.group_inputs, outputs = stage.group_outputs, columns = TURNED ? outputs : inputs;
  const ptrdiff_t row_stride = kTaps * (TURNED ? 1 : inputs), column_stride = kTaps * (TURNED ? inputs : 1);
  weight += static_cast<ptrdiff_t>(kTaps) * group * inputs * outputs + first * row_stride;
  for (int row = 0; row < count; ++row, weight += row_stride, factors += columns) {
    transform_weight_row<T, TURNED>(weight, column_stride, columns, factors, pitch);
  }
}

/// All of them; called by all threads.
template <typename T, bool TURNED>
void transform_all_weights(const FusedStage& stage, const T* weight, CommonJobs* jobs, T* factors) {
  const int rows = TURNED ? stage.group_inputs : stage.group_outputs;
  const int columns = TURNED ? stage.group_outputs : stage.group_inputs;
  const ptrdiff_t pitch = matrix_pitch<T>(rows, columns);
  jobs->run(static_cast<ptrdiff_t>(stage.group) * rows, [&](ptrdiff_t job) {
    const int group = static_cast<int>(job / rows), row = static_cast<int>(job % rows);
    transform_weight_rows<T, TURNED>(stage, weight, group, row, 1,
                                     factors + group * factor_count<T>(stage) + static_cast<ptrdiff_t>(row) * columns,
                                     pitch);
  });
}

/// Forward's results, and where they go.
template <typename T>
struct WinogradForward {
  const FusedStage& stage;
  Images<const T> in;
  const T *weight, *bias;
  Images<T> out;
  Finish<T> finish;

  /// Part `part` of a group's outputs from one job. `fetch` goes on meanwhile.
  void run_job(const WinogradJob<T>& job, const TileJobs<T>& jobs, int group, int part, FetchMeanwhile<T> fetch) const {
    const WinogradScratch<T>& scratch = job.scratch;
    const int inputs = stage.group_inputs, outputs = stage.group_outputs, first = part * jobs.part_outputs;
    const int count = smaller(jobs.part_outputs, outputs - first);
    const ptrdiff_t pitch = matrix_pitch<T>(inputs, jobs.part_outputs);
    const T* factors = scratch.factors;
    if (jobs.own_factors) {
      transform_weight_rows<T, false>(stage, weight, group, first, count, scratch.factors, pitch);
    } else {
      factors = job.shared.factors + group * factor_count<T>(stage);
    }
    job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
    job.multiply_tiles(factors, pitch, scratch.inputs, inputs, scratch.outputs, count, &fetch);
    job.transform_back(scratch.outputs, bias, finish, out, group * outputs + first, count);
  }
};

template <typename T>
void winograd_forward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                      const FusedTop<T>& top, void* workspace) {
  const WinogradWorkspace<T> memory(chain, false);
  const WinogradShared<T> shared = memory.shared(workspace);
  const FusedStage& stage = chain.stages[0];
  const TileJobs<T> jobs(chain, false);
  const Images<T> out = top_images(chain, top.data);
  const bool streamed = is_streamed(top.data, out.channels * chain.batch * out.planes.pitch, stage.out_width);
  const WinogradForward<T> pass = {stage,
                                   bottom_images(chain, bottom),
                                   parameters.weight[0],
                                   parameters.bias[0],
                                   out,
                                   {top.residual, top.data, chain.relu, streamed, false, nullptr, 0}};
  shared.neighbours.find(jobs.tiles(), jobs.map.columns);
  CommonJobs weights = {};
  const ptrdiff_t groups = static_cast<ptrdiff_t>(stage.group) * jobs.parts;
  SharedJobs shared_jobs(jobs.count() * groups);
#pragma omp parallel num_threads(chain.threads)
  {
    const WinogradScratch<T> scratch = memory.scratch(workspace, omp_get_thread_num());
    if (!jobs.own_factors) transform_all_weights<T, false>(stage, pass.weight, &weights, shared.factors);
    shared_jobs.run([&](ptrdiff_t job, ptrdiff_t next) {
      const int of_group = static_cast<int>(job % groups);
      const TileRows tiles = jobs.job(job / groups);
      pass.run_job({tiles, shared, scratch}, jobs, of_group / jobs.parts, of_group % jobs.parts,
                   fetch_job<T>(stage, pass.in, tiles, jobs.job(next / groups)));
    });
    end_streams();
  }
}

/// The gradients of one call. Pointers to what was not asked for are null.
template <typename T>
struct WinogradGradients {
  const FusedStage& stage;
  Images<const T> in, out_diff;
  Images<T> in_diff;
  Finish<T> finish;  ///< of in_diff
  T *weight, *bias;

  /// Of one group from one job; those of parameters are added to the scratch memory's. What the job of `next` reads is
  /// fetched meanwhile.
  void add_job(const WinogradJob<T>& job, int group, const TileRows& next) const {
    const WinogradScratch<T>& scratch = job.scratch;
    const int inputs = stage.group_inputs, outputs = stage.group_outputs;
    if (weight) {
      job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
      job.template transform<OutputGradientTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      FetchMeanwhile<T> fetch = fetch_job<T>(stage, in, job.tiles, next);
      job.add_factor_gradients(inputs, outputs, &fetch);
    }
    if (bias) add_bias_gradients(job.tiles, group, scratch.bias_diff);
    if (in_diff.planes.data) {
      job.template transform<InputTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      FetchMeanwhile<T> fetch = fetch_job<T>(stage, out_diff, job.tiles, next);
      job.multiply_tiles(job.shared.factors + group * factor_count<T>(stage), matrix_pitch<T>(inputs, outputs),
                         scratch.outputs, outputs, scratch.inputs, inputs, &fetch);
      job.transform_back(scratch.inputs, nullptr, finish, in_diff, group * inputs, inputs);
    }
  }

  void add_bias_gradients(const TileRows& tiles, int group, T* bias_diff) const {
    for (int o = group * stage.group_outputs; o < (group + 1) * stage.group_outputs; ++o) {
      const Channel<const T> channel = out_diff.channel(o);
      for (TileRow at(tiles); at.left > 0; at.next()) {
        const T* from = channel.row(at.image, at.y, at.width);
        bias_gradient<T>({1, at.rows() * at.width, 0, 0}, 1, &from, bias_diff + o);
      }
    }
  }

  /// One thread's part of the jobs.
  void run_part(const TileJobs<T>& jobs, int part, int parts, const WinogradShared<T>& shared,
                const WinogradScratch<T>& scratch) const {
    const ptrdiff_t kernels = static_cast<ptrdiff_t>(stage.group_inputs) * stage.group_outputs;
    fill(scratch.bias_diff, stage.out_channels, T(0));
    for (int group = 0; group < stage.group; ++group) {
      fill(scratch.factor_diff, factor_count<T>(stage), T(0));
      const ptrdiff_t end = jobs.count() * (part + 1) / parts;
      for (ptrdiff_t j = jobs.count() * part / parts; j < end; ++j) {
        add_job({jobs.job(j), shared, scratch}, group, jobs.job(smaller(j + 1, end - 1)));
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
  const TileJobs<T> jobs(chain, true);
  const WinogradGradients<T> wanted = {stage,
                                       bottom_images(chain, bottom),
                                       top_images(chain, top_diff),
                                       bottom_images(chain, gradients.bottom),
                                       bottom_finish(chain, bottom, gradients),
                                       gradients.weight[0],
                                       gradients.bias[0]};
  shared.neighbours.find(jobs.tiles(), jobs.map.columns);
  CommonJobs transposed = {};
#pragma omp parallel num_threads(chain.threads)
  {
    transform_all_weights<T, true>(stage, parameters.weight[0], &transposed, shared.factors);
#pragma omp for schedule(static, 1)
    for (int part = 0; part < chain.threads; ++part) {
      wanted.run_part(jobs, part, chain.threads, shared, memory.scratch(workspace, part));
    }
    for (int part = 0; part < chain.threads; ++part) {
      const WinogradScratch<T> scratch = memory.results(workspace, part);
      add_part(scratch.weight_diff, weight_count(stage), wanted.weight);
      add_part(scratch.bias_diff, stage.out_channels, wanted.bias);
    }
  }
}

}  // namespace
}  // namespace caffe_layers
