#pragma once

// A 3x3 convolution with stride 1 and a border of one zero, in groups of many channels, as 36 products of small
// matrices per group (winograd_transforms.hpp). Some rows of tiles at a time, so that their planes stay in the
// second-level cache: planes of all inputs, products, planes of all outputs back to pixels.

#include <omp.h>

#include "caffe_layers/kernels/simd/winograd_tiles.hpp"
#include "caffe_layers/kernels/simd/winograd_weights.hpp"
#include "caffe_layers/kernels/simd/workspace.hpp"

namespace caffe_layers {
namespace {

#ifndef TB
#define TB 589824
#endif
#ifndef MT
#define MT 64
#endif
/// Tiles of a job: as many as leave the planes of inputs and outputs in half of a second-level cache of 1 MB, not more
/// than it takes for products to run at full speed, but at least two vectors.
constexpr int kTileBytes = TB, kMostTiles = MT;
template <typename T>
inline int job_tiles(const FusedStage& stage) {
  const int bytes = kTileProducts * (stage.group_inputs + stage.group_outputs) * static_cast<int>(sizeof(T));
  return larger(2, smaller(kMostTiles, kTileBytes / bytes) / kLanes<T>) * kLanes<T>;
}

/// How a call is cut into jobs: `job_rows` rows of tiles of one group.
template <typename T>
struct TileJobs {
  TileMap map;
  ptrdiff_t all_rows;
  int job_rows;

  explicit TileJobs(const FusedChain& chain) {
    const FusedStage& stage = chain.stages[0];
    map = {stage.in_height, stage.in_width, (stage.in_height + kTileOutputs - 1) / kTileOutputs,
           (stage.in_width + kTileOutputs - 1) / kTileOutputs};
    all_rows = static_cast<ptrdiff_t>(chain.batch) * map.rows;
    const ptrdiff_t fair = (all_rows + chain.threads - 1) / chain.threads;
    job_rows = static_cast<int>(smaller<ptrdiff_t>(larger(1, job_tiles<T>(stage) / map.columns), fair));
  }
  /// Tiles of a job, in whole vectors.
  int tiles(int rows) const { return round_up(rows * map.columns, kLanes<T>); }
  ptrdiff_t count() const { return (all_rows + job_rows - 1) / job_rows; }
  TileRows job(ptrdiff_t index) const {
    const ptrdiff_t begin = index * job_rows;
    const int rows = static_cast<int>(smaller<ptrdiff_t>(job_rows, all_rows - begin));
    return {map, begin, rows, tiles(rows)};
  }
};

/// The planes of a group's channels: product after product, in each channel after channel.
template <typename T>
struct TilePlanes {
  T* data;
  ptrdiff_t pitch, product_pitch;

  static TilePlanes take(Arena* arena, int channels, int tiles) {
    const ptrdiff_t product_pitch = static_cast<ptrdiff_t>(channels) * tiles + kLanes<T>;  // other cache sets
    return {arena->take<T>(kTileProducts * product_pitch), tiles, product_pitch};
  }
  Planes<T> of(int product) const { return {data + product * product_pitch, pitch, nullptr}; }
};

/// What all threads read: transformed weights, for backward those of the way back.
template <typename T>
struct WinogradShared {
  T* weight;
  Neighbours<T> neighbours;

  static WinogradShared take(Arena* arena, const FusedChain& chain, bool) {
    const FusedStage& stage = chain.stages[0];
    const TileJobs<T> jobs(chain);
    const int vectors = jobs.tiles(jobs.job_rows) / kLanes<T>;
    typedef typename VectorOf<T>::Index Index;
    WinogradShared shared;
    shared.weight =
        arena->take<T>(static_cast<ptrdiff_t>(kTileProducts) * stage.group_inputs * stage.out_channels);
    shared.neighbours = {arena->take<Index>(vectors), arena->take<Index>(vectors)};
    return shared;
  }
};

/// Of one thread.
template <typename T>
struct WinogradScratch {
  TilePlanes<T> inputs, outputs;
  Lines<T> lines;
  const T **in, **out_diff;  ///< lists of planes
  T** out;
  T *product_diff, *weight_diff, *bias_diff;

  static WinogradScratch take(Arena* arena, const FusedChain& chain, bool backward) {
    const FusedStage& stage = chain.stages[0];
    const TileJobs<T> jobs(chain);
    const int tiles = jobs.tiles(jobs.job_rows), channels = larger(stage.group_inputs, stage.group_outputs);
    WinogradScratch scratch = {};
    scratch.inputs = TilePlanes<T>::take(arena, stage.group_inputs, tiles);
    scratch.outputs = TilePlanes<T>::take(arena, stage.group_outputs, tiles);
    scratch.lines.pitch = kTileOutputs * (tiles + kLanes<T>);
    scratch.lines.data = arena->take<T>(kTileInputs * scratch.lines.pitch);
    T* zeros = arena->take<T>(stage.in_width);
    if (zeros) fill(zeros, stage.in_width, T(0));
    scratch.lines.zeros = zeros;
    scratch.in = arena->take<const T*>(channels);
    scratch.out_diff = arena->take<const T*>(channels);
    scratch.out = arena->take<T*>(channels);
    if (!backward) return scratch;
    const ptrdiff_t weights = static_cast<ptrdiff_t>(stage.group_inputs) * stage.group_outputs;
    scratch.product_diff = arena->take<T>(kTileProducts * weights);
    scratch.weight_diff = arena->take<T>(weight_count(stage));
    scratch.bias_diff = arena->take<T>(stage.out_channels);
    return scratch;
  }
};

template <typename T>
using WinogradWorkspace = Workspace<WinogradShared<T>, WinogradScratch<T>>;

/// The channels of all images, from the first image's on.
template <typename T>
struct Images {
  Planes<T> planes;
  ptrdiff_t image_pitch;
  Channel<T> at(int channel) const { return {planes.at(channel), image_pitch}; }
};

/// One job on one thread.
template <typename T>
struct WinogradJob {
  TileRows tiles;
  const WinogradShared<T>& shared;
  const WinogradScratch<T>& scratch;

  /// Channels first .. first + channels - 1 of `images` into `planes`.
  template <typename Transform>
  void transform(const Images<const T>& images, int first, int channels, const TilePlanes<T>& planes) const {
    fill(scratch.lines.data, kTileInputs * scratch.lines.pitch, T(0));  // behind the last tiles
    for (int c = 0; c < channels; ++c) {
      transform_channel<T, Transform>(tiles, images.at(first + c), scratch.lines, shared.neighbours,
                                      planes.data + c * planes.pitch, planes.product_pitch);
    }
  }

  /// The outputs' planes from the inputs'.
  void multiply_planes(const TilePlanes<T>& from, int inputs, const T* weight, const TilePlanes<T>& to,
                       int outputs) const {
    const Finish<T> none = {};
    for (int p = 0; p < kTileProducts; ++p, weight += static_cast<ptrdiff_t>(inputs) * outputs) {
      const Planes<T> planes = from.of(p);
      list_planes<const T>({planes.data, planes.pitch, nullptr}, inputs, scratch.in);
      list_planes(to.of(p), outputs, scratch.out);
      multiply<T>({1, tiles.tiles, 0, 0}, 1, {inputs, outputs, weight, nullptr, &none}, scratch.in, scratch.out);
    }
  }

  /// Back to pixels; bias of channel `first` on, or null.
  void transform_back(const TilePlanes<T>& planes, const T* bias, const Finish<T>& finish, const Images<T>& images,
                      int first, int channels) const {
    for (int c = 0; c < channels; ++c) {
      caffe_layers::transform_back(tiles, planes.data + c * planes.pitch, planes.product_pitch, scratch.lines,
                                   bias ? bias[first + c] : T(0), finish, images.at(first + c));
    }
  }

  /// product_diff += dM V^T
  void add_product_gradients(int inputs, int outputs) const {
    for (int p = 0; p < kTileProducts; ++p) {
      const Planes<T> v = scratch.inputs.of(p), dm = scratch.outputs.of(p);
      list_planes<const T>({v.data, v.pitch, nullptr}, inputs, scratch.in);
      list_planes<const T>({dm.data, dm.pitch, nullptr}, outputs, scratch.out_diff);
      multiply_gradient<T>({1, tiles.tiles, 0, 0}, inputs, scratch.in, outputs, scratch.out_diff,
                           scratch.product_diff + static_cast<ptrdiff_t>(p) * inputs * outputs);
    }
  }
};

template <typename T>
size_t winograd_workspace_bytes(const FusedChain& chain, bool backward) {
  return WinogradWorkspace<T>(chain, backward).bytes();
}

template <typename T>
void winograd_forward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                      const FusedTop<T>& top, void* workspace) {
  const WinogradWorkspace<T> memory(chain, false);
  const WinogradShared<T> shared = memory.shared(workspace);
  const FusedStage& stage = chain.stages[0];
  const TileJobs<T> jobs(chain);
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(stage.in_height) * stage.in_width;
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const ptrdiff_t products = static_cast<ptrdiff_t>(kTileProducts) * inputs * outputs;
  const Images<const T> in = {{bottom, pixels, stage.input_channel}, stage.in_channels * pixels};
  const Images<T> out = {{top.data, pixels, chain.output_position}, stage.out_channels * pixels};
  const bool streamed = is_streamed(top.data, chain.batch * stage.out_channels, stage.in_height, stage.in_width);
  const Finish<T> finish = {top.residual, top.data, chain.relu, streamed, nullptr};
  find_neighbours(jobs.tiles(jobs.job_rows), jobs.map.columns, shared.neighbours);
#pragma omp parallel num_threads(chain.threads)
  {
    const WinogradScratch<T> scratch = memory.scratch(workspace, omp_get_thread_num());
#pragma omp for
    for (int o = 0; o < stage.out_channels; ++o) {
      transform_weight_row<T, false>(parameters.weight[0] + static_cast<ptrdiff_t>(9) * o * inputs, 9, inputs,
                                     shared.weight + o / outputs * products + o % outputs * inputs, inputs * outputs);
    }
#pragma omp for schedule(dynamic)
    for (ptrdiff_t index = 0; index < jobs.count() * stage.group; ++index) {
      const int group = static_cast<int>(index % stage.group);
      const WinogradJob<T> job = {jobs.job(index / stage.group), shared, scratch};
      job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
      job.multiply_planes(scratch.inputs, inputs, shared.weight + group * products, scratch.outputs, outputs);
      job.transform_back(scratch.outputs, parameters.bias[0], finish, out, group * outputs, outputs);
    }
    end_streams();
  }
}

/// What backward works on.
template <typename T>
struct WinogradGradients {
  const FusedStage& stage;
  Images<const T> in, out_diff;
  Images<T> in_diff;
  bool streamed;  ///< in_diff
  T *weight, *bias;

  /// The gradients of one group from a job; those of parameters are added to the scratch memory's.
  void run(const WinogradJob<T>& job, int group) const {
    const WinogradScratch<T>& scratch = job.scratch;
    const int inputs = stage.group_inputs, outputs = stage.group_outputs;
    if (weight) {
      job.template transform<InputTransform>(in, group * inputs, inputs, scratch.inputs);
      job.template transform<OutputGradientTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      job.add_product_gradients(inputs, outputs);
    }
    if (bias) add_bias_gradients(job.tiles, group, scratch.bias_diff);
    if (in_diff.planes.data) {
      const Finish<T> finish = {nullptr, nullptr, false, streamed, nullptr};
      const T* turned = job.shared.weight + static_cast<ptrdiff_t>(kTileProducts) * group * inputs * outputs;
      job.template transform<InputTransform>(out_diff, group * outputs, outputs, scratch.outputs);
      job.multiply_planes(scratch.outputs, outputs, turned, scratch.inputs, inputs);
      job.transform_back(scratch.inputs, nullptr, finish, in_diff, group * inputs, inputs);
    }
  }

  void add_bias_gradients(const TileRows& tiles, int group, T* bias_diff) const {
    for (int o = group * stage.group_outputs; o < (group + 1) * stage.group_outputs; ++o) {
      const Channel<const T> channel = out_diff.at(o);
      tiles.for_each([&](ptrdiff_t image, int y) {
        const T* from = channel.row(image, y, stage.out_width);
        const int rows = smaller(kTileOutputs, stage.out_height - y);
        bias_gradient<T>({1, rows * stage.out_width, 0, 0}, 1, &from, bias_diff + o);
      });
    }
  }

  /// All jobs of one thread.
  void run_part(const TileJobs<T>& jobs, int part, int parts, const WinogradShared<T>& shared,
                const WinogradScratch<T>& scratch) const {
    const int inputs = stage.group_inputs, outputs = stage.group_outputs;
    fill(scratch.bias_diff, stage.out_channels, T(0));
    for (int group = 0; group < stage.group; ++group) {
      fill(scratch.product_diff, static_cast<ptrdiff_t>(kTileProducts) * inputs * outputs, T(0));
      for (ptrdiff_t j = jobs.count() * part / parts; j < jobs.count() * (part + 1) / parts; ++j) {
        run({jobs.job(j), shared, scratch}, group);
      }
      if (weight) {
        transform_back_weights(scratch.product_diff, inputs, outputs,
                               scratch.weight_diff + static_cast<ptrdiff_t>(9) * group * inputs * outputs);
      }
    }
  }
};

template <typename T>
void winograd_backward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters,
                       const T* top_diff, const FusedGradients<T>& gradients, void* workspace) {
  const WinogradWorkspace<T> memory(chain, true);
  const WinogradShared<T> shared = memory.shared(workspace);
  const FusedStage& stage = chain.stages[0];
  const TileJobs<T> jobs(chain);
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(stage.in_height) * stage.in_width;
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const ptrdiff_t products = static_cast<ptrdiff_t>(kTileProducts) * inputs * outputs;
  const WinogradGradients<T> run = {
      stage,
      {{bottom, pixels, stage.input_channel}, stage.in_channels * pixels},
      {{top_diff, pixels, chain.output_position}, stage.out_channels * pixels},
      {{gradients.bottom, pixels, stage.input_channel}, stage.in_channels * pixels},
      is_streamed(gradients.bottom, chain.batch * stage.in_channels, stage.in_height, stage.in_width),
      gradients.weight[0],
      gradients.bias[0]};
  find_neighbours(jobs.tiles(jobs.job_rows), jobs.map.columns, shared.neighbours);
#pragma omp parallel num_threads(chain.threads)
  {
#pragma omp for
    for (int i = 0; i < stage.in_channels; ++i) {
      const T* weight = parameters.weight[0] + static_cast<ptrdiff_t>(9) * (i / inputs * outputs * inputs + i % inputs);
      transform_weight_row<T, true>(weight, 9 * inputs, outputs,
                                    shared.weight + i / inputs * products + i % inputs * outputs, inputs * outputs);
    }
#pragma omp for schedule(static, 1)
    for (int part = 0; part < chain.threads; ++part) {
      run.run_part(jobs, part, chain.threads, shared, memory.scratch(workspace, part));
      end_streams();
    }
  }
  for (int part = 0; part < chain.threads; ++part) {  // always in this order: the same sums every time
    const WinogradScratch<T> scratch = memory.scratch(workspace, part);
    const ptrdiff_t weights = weight_count(stage);
    for (ptrdiff_t i = 0; run.weight && i < weights; ++i) run.weight[i] += scratch.weight_diff[i];
    for (int o = 0; run.bias && o < stage.out_channels; ++o) run.bias[o] += scratch.bias_diff[o];
  }
}

}  // namespace
}  // namespace caffe_layers
