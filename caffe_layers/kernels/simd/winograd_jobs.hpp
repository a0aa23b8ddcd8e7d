#pragma once

// How Winograd's algorithm cuts a call into jobs, the scratch memory of a job, and its steps.

#include "caffe_layers/kernels/simd/winograd_blocks.hpp"
#include "caffe_layers/kernels/simd/winograd_weights.hpp"
#include "caffe_layers/kernels/simd/workspace.hpp"

namespace caffe_layers {
namespace {

/// Tiles of a job: as many as leave the planes of inputs and outputs in half of a second-level cache of 1 MB, not more
/// than products need to run at full speed, but at least two vectors.
constexpr int kTileBytes = 589824, kMostTiles = 64;
template <typename T>
inline int job_tiles(const FusedStage& stage) {
  const int bytes = kTileProducts * (stage.group_inputs + stage.group_outputs) * static_cast<int>(sizeof(T));
  return larger(2, smaller(kMostTiles, kTileBytes / bytes) / kLanes<T>) * kLanes<T>;
}

/// The jobs of a group: some rows of tiles each, of one image or several. In forward, where these are fewer than the
/// threads, all tiles but some of the outputs: that needs all inputs transformed, but of the weights only those
/// outputs'.
template <typename T>
struct TileJobs {
  TileMap map;
  ptrdiff_t all_rows;
  int job_rows;
  int part_outputs, parts;  ///< of a group
  bool own_factors;         ///< each job transforms the weights that it needs, others perhaps the same: none waits

  TileJobs(const FusedChain& chain, bool backward) {
    const FusedStage& stage = chain.stages[0];
    map = {stage.in_height, stage.in_width, (stage.in_height + kTileOutputs - 1) / kTileOutputs,
           (stage.in_width + kTileOutputs - 1) / kTileOutputs};
    all_rows = static_cast<ptrdiff_t>(chain.batch) * map.rows;
    const ptrdiff_t vector = (kLanes<T> + map.columns - 1) / map.columns;  // with less a job takes as long
    const ptrdiff_t fair = larger((all_rows + chain.threads - 1) / chain.threads, vector);
    const ptrdiff_t most = larger(1, job_tiles<T>(stage) / map.columns);
    job_rows = static_cast<int>(smaller(smaller(most, fair), all_rows));
    part_outputs = stage.group_outputs;
    if (!backward && all_rows <= most && count() * stage.group < chain.threads) {
      job_rows = static_cast<int>(all_rows);
      const int wanted = chain.threads / stage.group;
      part_outputs = round_up((stage.group_outputs + wanted - 1) / wanted, kMostOutputs);
    }
    parts = (stage.group_outputs + part_outputs - 1) / part_outputs;
    own_factors = !backward && count() * stage.group * parts <= chain.threads;
  }
  /// Of a whole job, in whole vectors.
  int tiles() const { return round_up(job_rows * map.columns, kLanes<T>); }
  ptrdiff_t count() const { return (all_rows + job_rows - 1) / job_rows; }
  TileRows job(ptrdiff_t index) const {
    const ptrdiff_t begin = index * job_rows;
    const int rows = static_cast<int>(smaller<ptrdiff_t>(job_rows, all_rows - begin));
    return {map, begin, rows, round_up(rows * map.columns, kLanes<T>)};
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
  /// The first plane of a channel; the other 35 are product_pitch apart.
  T* channel(int c) const { return data + c * pitch; }
  template <typename Plane>
  void list(int product, int channels, Plane** planes) const {
    list_planes<Plane>({data + product * product_pitch, pitch, nullptr}, channels, planes);
  }
};

/// The factors of a group's weights, in 36 matrices.
template <typename T>
inline ptrdiff_t factor_count(const FusedStage& stage) {
  return kTileProducts * matrix_pitch<T>(stage.group_inputs, stage.group_outputs);
}

/// What all threads read: transformed weights, in backward those of the way back.
template <typename T>
struct WinogradShared {
  T* factors;  ///< null where a job transforms its own
  Neighbours<T> neighbours;

  static WinogradShared take(Arena* arena, const FusedChain& chain, bool backward) {
    const FusedStage& stage = chain.stages[0];
    const TileJobs<T> jobs(chain, backward);
    T* factors = jobs.own_factors ? nullptr : arena->take<T>(stage.group * factor_count<T>(stage));
    return {factors, Neighbours<T>::take(arena, jobs.tiles() / kLanes<T>)};
  }
};

/// Of one thread.
template <typename T>
struct WinogradScratch {
  TilePlanes<T> inputs, outputs;
  T* factors;  ///< of a part of a group's outputs
  Lines<T> lines;
  const T **in, **out_diff;  ///< lists of planes
  T** out;
  T *factor_diff, *weight_diff, *bias_diff;  ///< the first of one group

  static WinogradScratch take(Arena* arena, const FusedChain& chain, bool backward) {
    const FusedStage& stage = chain.stages[0];
    const TileJobs<T> jobs(chain, backward);
    const int tiles = jobs.tiles(), channels = larger(stage.group_inputs, stage.group_outputs);
    WinogradScratch scratch = {};
    if (jobs.own_factors) {
      scratch.factors = arena->take<T>(kTileProducts * matrix_pitch<T>(stage.group_inputs, jobs.part_outputs));
    }
    scratch.inputs = TilePlanes<T>::take(arena, stage.group_inputs, tiles);
    scratch.outputs = TilePlanes<T>::take(arena, stage.group_outputs, tiles);
    scratch.lines = Lines<T>::take(arena, tiles, stage.in_width);
    scratch.in = arena->take<const T*>(channels);
    scratch.out_diff = arena->take<const T*>(channels);
    scratch.out = arena->take<T*>(channels);
    if (!backward) return scratch;
    scratch.factor_diff = arena->take<T>(factor_count<T>(stage));
    scratch.weight_diff = arena->take<T>(weight_count(stage));
    scratch.bias_diff = arena->take<T>(stage.out_channels);
    return scratch;
  }
};

/// All channels of all images.
template <typename T>
struct Images {
  Planes<T> planes;  ///< of the first image
  int channels;

  Channel<T> channel(int c) const {
    T* data = planes.at(c);
    return {data, channels * planes.pitch, planes.at(smaller(c + 1, channels - 1)) - data};
  }
};

/// What the job of `next` reads of `images`, to be fetched during the products of the job of `now`: its images, or its
/// rows of the first of them. Nothing if the two are the same, or there are several groups: then another is next.
template <typename T>
FetchMeanwhile<T> fetch_job(const FusedStage& stage, const Images<const T>& images, const TileRows& now,
                            const TileRows& next) {
  if (stage.group > 1 || next.begin == now.begin) return {};
  const ptrdiff_t plane = images.planes.pitch, image = plane * images.channels;
  const ptrdiff_t work = static_cast<ptrdiff_t>(kTileProducts) * stage.group_inputs * stage.group_outputs * now.tiles;
  const int row = static_cast<int>(next.begin % next.map.rows), y = row * kTileOutputs;
  const T* from = images.planes.data + next.begin / next.map.rows * image + static_cast<ptrdiff_t>(y) * next.map.width;
  if (row == 0 && next.count >= next.map.rows) return {from, next.count / next.map.rows * image, work};
  const int rows = smaller(next.count * kTileOutputs, next.map.height - y);
  return {from, static_cast<ptrdiff_t>(rows) * next.map.width, plane, images.channels, work};
}

/// One job of one group on one thread.
template <typename T>
struct WinogradJob {
  TileRows tiles;
  const WinogradShared<T>& shared;
  const WinogradScratch<T>& scratch;

  /// The planes of channels first .. first + channels - 1.
  template <typename Transform>
  void transform(const Images<const T>& images, int first, int channels, const TilePlanes<T>& planes) const {
    if (!has_blocks<T>(tiles.map)) scratch.lines.clear();  // behind the last tiles there must be zeros
    const auto run = choose_transform<T, Transform>(tiles.map);
    for (int c = 0; c < channels; ++c) {
      run(tiles, images.channel(first + c), scratch.lines, shared.neighbours, planes.channel(c), planes.product_pitch);
    }
  }

  /// The products: `to` = factors x `from`; the factors' matrices are `pitch` apart. `fetch` goes on meanwhile.
  void multiply_tiles(const T* factors, ptrdiff_t pitch, const TilePlanes<T>& from, int inputs, const TilePlanes<T>& to,
                      int outputs, FetchMeanwhile<T>* fetch) const {
    const Finish<T> none = {};
    for (int p = 0; p < kTileProducts; ++p, factors += pitch) {
      from.list(p, inputs, scratch.in);
      to.list(p, outputs, scratch.out);
      multiply<T>({1, tiles.tiles, 0, 0}, 1, {inputs, outputs, factors, nullptr, &none}, scratch.in, scratch.out);
      fetch->add(static_cast<ptrdiff_t>(inputs) * outputs * tiles.tiles);
    }
  }

  /// Back to pixels; bias of channel `first` on, or null.
  void transform_back(const TilePlanes<T>& planes, const T* bias, const Finish<T>& finish, const Images<T>& images,
                      int first, int channels) const {
    const auto run = choose_transform_back<T>(tiles.map);
    for (int c = 0; c < channels; ++c) {
      run(tiles, planes.channel(c), planes.product_pitch, scratch.lines, bias ? bias[first + c] : T(0), finish,
          images.channel(first + c));
    }
  }

  /// factor_diff += outputs' gradients x inputs^T. `fetch` goes on meanwhile.
  void add_factor_gradients(int inputs, int outputs, FetchMeanwhile<T>* fetch) const {
    T* diff = scratch.factor_diff;
    for (int p = 0; p < kTileProducts; ++p, diff += matrix_pitch<T>(inputs, outputs)) {
      scratch.inputs.list(p, inputs, scratch.in);
      scratch.outputs.list(p, outputs, scratch.out_diff);
      multiply_gradient<T>({1, tiles.tiles, 0, 0}, inputs, scratch.in, outputs, scratch.out_diff, diff, fetch);
    }
  }
};

}  // namespace
}  // namespace caffe_layers
