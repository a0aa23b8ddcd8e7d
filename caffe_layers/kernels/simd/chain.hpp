#pragma once

// Runs a chain image after image, so that what lies between the stages stays in the cache of one core.
//
// The chain is a sequence of segments: a spatial stage (except perhaps in the first), then stages that are 1x1. The
// spatial stage works on whole images (or bands of rows), the 1x1 stages on tiles of pixels, all of them on one tile
// before the next.

#include <omp.h>

#include "caffe_layers/kernels/simd/jobs.hpp"
#include "caffe_layers/kernels/simd/stages.hpp"

namespace caffe_layers {
namespace {

/// Stages begin .. end - 1; if `spatial`, the first of them is.
struct Segment {
  int begin, end;
  bool spatial;
  int first_pointwise() const { return begin + spatial; }
};

inline Segment segment_at(const FusedChain& chain, int begin) {
  int end = begin + 1;
  while (end < chain.num_stages && !is_spatial(chain.stages[end])) ++end;
  return {begin, end, is_spatial(chain.stages[begin])};
}

/// Calls work(at, pixels) for each tile of `pixels` pixels.
template <typename T, typename Work>
void for_each_tile(const FusedChain& chain, int pixels, const Work& work) {
  const int tile = tile_pixels<T>(chain);
  for (int at = 0; at < pixels; at += tile) work(at, smaller(tile, pixels - at));
}

/// The whole chain.
template <typename T>
void run_forward(const Image<T>& image) {
  for (int begin = 0; begin < image.chain.num_stages;) {
    const Segment segment = segment_at(image.chain, begin);
    if (segment.spatial) spatial_stage(image, begin);
    const FusedStage& stage = image.chain.stages[segment.end - 1];
    const int rows = segment.end == image.chain.num_stages ? image.rows : stage.out_height;
    for_each_tile<T>(image.chain, rows * stage.out_width, [&](int at, int pixels) {
      for (int s = segment.first_pointwise(); s < segment.end; ++s) pointwise_stage(image, s, at, pixels);
    });
    begin = segment.end;
  }
}

template <typename T>
size_t workspace_bytes(const FusedChain& chain, bool backward) {
  return backward ? BackwardWorkspace<T>(chain).bytes() : Workspace<Shared<T>, Scratch<T>>(chain, false).bytes();
}

/// Forward's jobs: each image in bands of rows, or in parts of the outputs.
struct ForwardJobs {
  int rows, bands, outputs, parts;

  ptrdiff_t count(const FusedChain& chain) const { return static_cast<ptrdiff_t>(chain.batch) * bands * parts; }
  ptrdiff_t image(ptrdiff_t job) const { return job / (bands * parts); }
  int first_row(ptrdiff_t job) const { return static_cast<int>(job / parts % bands) * rows; }
  int first_output(ptrdiff_t job) const { return static_cast<int>(job % parts) * outputs; }
};

/// Where there are fewer images than threads, the outputs of a single convolution without groups are shared out: bands
/// of a small map would be narrow, and each would need all weights.
template <typename T>
ForwardJobs forward_jobs(const FusedChain& chain) {
  const FusedStage &first = chain.stages[0], &last = chain.stages[chain.num_stages - 1];
  const int for_each_image = (chain.threads + chain.batch - 1) / chain.batch;
  const bool splits =
      chain.num_stages == 1 && first.group == 1 && is_spatial(first) && !is_strided<T>(first) && for_each_image > 1;
  const int rows = forward_rows<T>(chain, splits ? 1 : for_each_image);
  const int outputs =
      splits ? round_up((last.out_channels + for_each_image - 1) / for_each_image, kMostOutputs) : last.out_channels;
  return {rows, (last.out_height + rows - 1) / rows, outputs, (last.out_channels + outputs - 1) / outputs};
}

/// A chain with only some outputs, all or those of a job; they are of its only stage.
template <typename T>
struct ChainPart {
  FusedStage last;
  FusedChain chain;
  const T *weight, *bias;
  FusedParameters<T> parameters;

  ChainPart(const FusedChain& whole, const FusedParameters<T>& all, int first, int outputs)
      : chain(whole), parameters(all) {
    last = whole.stages[whole.num_stages - 1];
    if (outputs == last.out_channels) return;
    outputs = smaller(outputs, last.out_channels - first);
    weight = all.weight[0] + first * (weight_count(last) / last.out_channels);
    bias = all.bias[0] ? all.bias[0] + first : nullptr;
    parameters = {&weight, &bias};
    last.out_channels = last.group_outputs = outputs;
    chain.stages = &last;
    chain.output_position += first;
  }
};

/// Runs a job while the caches begin to fetch the image of `next`, which this thread will probably take: to take it now
/// would keep it from a thread that is free sooner.
template <typename T>
void forward_job(Image<T> image, const T* bottom, const FusedTop<T>& top, ptrdiff_t top_size, const ForwardJobs& jobs,
                 ptrdiff_t job, ptrdiff_t next) {
  const FusedChain& chain = image.chain;
  const FusedStage &first = chain.stages[0], &last = chain.stages[chain.num_stages - 1];
  const ptrdiff_t bottom_size = first.in_channels * image.bottom_pitch();
  const ptrdiff_t n = jobs.image(job), next_n = jobs.image(next);
  image.first_row = jobs.first_row(job);
  image.rows = smaller(jobs.rows, last.out_height - image.first_row);
  image.bottom = bottom + n * bottom_size;
  if (!is_spatial(first)) image.bottom += static_cast<ptrdiff_t>(image.first_row) * first.in_width;
  const ptrdiff_t top_at = n * top_size + static_cast<ptrdiff_t>(image.first_row) * last.out_width;
  image.top = top.data + top_at;
  if (top.residual) image.residual = top.residual + top_at;
  const bool fetch = next_n != n && top_size <= bottom_size;
  image.bottom_ahead = fetch ? bottom + next_n * bottom_size : nullptr;
  image.lines_ahead = fits_half_cache<T>(bottom_size) && bottom_size >= 2 * top_size ? 2 : 1;
  run_forward(image);
}

template <typename T>
void forward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters, const FusedTop<T>& top,
             void* workspace) {
  const Workspace<Shared<T>, Scratch<T>> memory(chain, false);
  const Shared<T> shared = memory.shared(workspace);
  const FusedStage& last = chain.stages[chain.num_stages - 1];
  const ForwardJobs jobs = forward_jobs<T>(chain);
  const ptrdiff_t top_size = static_cast<ptrdiff_t>(last.out_channels) * last.out_height * last.out_width;
  const bool rows_joined = !is_spatial(last) && jobs.bands == 1;  // 1x1 stages write planes without regard to rows
  const bool streamed =
      is_streamed(top.data, chain.batch * top_size, rows_joined ? last.out_height * last.out_width : last.out_width);
  SharedJobs shared_jobs(jobs.count(chain));
#pragma omp parallel num_threads(chain.threads)
  {
    const Scratch<T> scratch = memory.scratch(workspace, omp_get_thread_num());
    shared_jobs.run([&](ptrdiff_t job, ptrdiff_t next) {
      const ChainPart<T> part(chain, parameters, jobs.first_output(job), jobs.outputs);
      Image<T> image = {part.chain, part.parameters, shared, scratch};
      image.top_streamed = streamed;
      forward_job(image, bottom, top, top_size, jobs, job, next);
    });
    end_streams();
  }
}

}  // namespace
}  // namespace caffe_layers
