#pragma once

// One stage of a chain on one image: forward and backward, with a spatial kernel on all of it and 1x1 on a tile of
// pixels.

#include "caffe_layers/kernels/simd/workspace.hpp"

namespace caffe_layers {
namespace {

/// Whether a spatial stage computes planes of so many pixels faster than memory gives and takes what it needs.
template <typename T>
bool is_small(ptrdiff_t pixels) {
  return pixels * static_cast<ptrdiff_t>(sizeof(T)) < 4096;
}

/// Whether so many values are at most half of a second-level cache of 1 MB.
template <typename T>
bool fits_half_cache(ptrdiff_t values) {
  return values * static_cast<ptrdiff_t>(sizeof(T)) <= 524288;
}

/// One image, or one band of it, on its way through the chain. Pointers that a pass does not need are null.
template <typename T>
struct Image {
  const FusedChain& chain;
  const FusedParameters<T>& parameters;
  const Shared<T>& shared;
  const Scratch<T>& scratch;
  const T* bottom;
  T* top;
  const T* residual;
  const T* top_diff;
  T* bottom_diff;
  Finish<T> bottom_finish;  ///< of bottom_diff
  bool top_streamed;
  const T* bottom_ahead;     ///< of the image that comes after this one
  int lines_ahead;           ///< of it with each line of the top
  FetchMeanwhile<T>* fetch;  ///< of it, or the top's gradient, in backward
  int first_row, rows;       ///< of the top; less than the whole only in chains without a second spatial stage

  ptrdiff_t bottom_pitch() const {
    return static_cast<ptrdiff_t>(chain.stages[0].in_height) * chain.stages[0].in_width;
  }
  ptrdiff_t top_pitch() const {
    const FusedStage& last = chain.stages[chain.num_stages - 1];
    return static_cast<ptrdiff_t>(last.out_height) * last.out_width;
  }
  static ptrdiff_t begin(const Buffer<T>& buffer, int pixel) { return buffer.image ? pixel : 0; }

  /// What stage s reads and writes, from pixel `at` on; and the gradients of both.
  Planes<const T> input(int s, int at) const {
    const int* order = chain.stages[s].input_channel;
    if (s == 0) return {bottom + at, bottom_pitch(), order};
    const Buffer<T>& buffer = scratch.value[s - 1];
    return {buffer.data + begin(buffer, at), buffer.pitch, order};
  }
  Planes<T> output(int s, int at) const {
    if (s == chain.num_stages - 1) return {top + at, top_pitch(), chain.output_position};
    const Buffer<T>& buffer = scratch.value[s];
    return {buffer.data + begin(buffer, at), buffer.pitch, nullptr};
  }
  /// The top's gradient if it is fetched while backward runs stage s again: its planes are read in another order, so
  /// that small ones each wait for memory.
  Ahead<T> top_diff_ahead(int s) const {
    const ptrdiff_t pixels = top_pitch(), all = chain.stages[chain.num_stages - 1].out_channels * pixels;
    return top_diff && is_small<T>(pixels) ? Ahead<T>{top_diff, all / chain.stages[s].group} : Ahead<T>{};
  }
  Finish<T> finish(int s) const {
    if (s < chain.num_stages - 1) return {};
    return {residual, top, chain.relu, top_streamed, rows == chain.stages[s].out_height, bottom_ahead, lines_ahead};
  }
  Planes<const T> output_diff(int s, int at) const {
    if (s == chain.num_stages - 1) return {top_diff + at, top_pitch(), chain.output_position};
    const Buffer<T>& buffer = scratch.diff[s];
    return {buffer.data + begin(buffer, at), buffer.pitch, nullptr};
  }
  Planes<T> input_diff(int s, int at) const {
    const int* order = chain.stages[s].input_channel;
    if (s == 0) return {bottom_diff + at, bottom_pitch(), order};
    const Buffer<T>& buffer = scratch.diff[s - 1];
    return {buffer.data + begin(buffer, at), buffer.pitch, order};
  }
};

/// Stage s, which is spatial: the image's rows, or all of the stage's where the image is whole.
template <typename T>
void spatial_stage(const Image<T>& image, int s) {
  const FusedStage& stage = image.chain.stages[s];
  const bool band = image.rows < image.chain.stages[image.chain.num_stages - 1].out_height;
  const int rows = band ? image.rows : stage.out_height;
  const T *weight = image.parameters.weight[s], *bias = image.parameters.bias[s];
  const SpatialScratch<T>& scratch = image.scratch.spatial;
  if (takes_every_second<T>(stage)) {
    const T** in = image.scratch.in;
    T** out = image.scratch.out;
    list_planes(image.input(s, 0), stage.in_channels, in);
    list_planes(image.output(s, 0), stage.out_channels, out);
    if (is_packed<T>(stage)) {
      return packed_forward(stage, in, weight, bias, image.first_row, rows, out, image.finish(s), scratch);
    }
    const auto run = stage.group_inputs == 2 ? strided_forward<T, 2> : strided_forward<T, 4>;
    run(stage, in, weight, bias, image.first_row, rows, out, image.finish(s));
  } else if (is_direct_forward<T>(stage)) {
    const auto run = stage.stride == 1 ? direct_forward<T, 1> : direct_forward<T, 2>;
    run(stage, image.input(s, 0), weight, bias, image.first_row, rows, image.output(s, 0), image.finish(s),
        scratch.zeros, image.top_diff_ahead(s));
  } else {
    spatial_forward(stage, image.input(s, 0), weight, bias, image.first_row, rows, image.output(s, 0), image.finish(s),
                    scratch);
  }
}

/// 1x1 stage s on pixels at .. at + pixels - 1.
template <typename T>
void pointwise_stage(const Image<T>& image, int s, int at, int pixels) {
  const FusedStage& stage = image.chain.stages[s];
  const Scratch<T>& scratch = image.scratch;
  list_planes(image.input(s, at), stage.in_channels, scratch.in);
  list_planes(image.output(s, at), stage.out_channels, scratch.out);
  const Finish<T> finish = image.finish(s);
  multiply<T>({1, pixels, 0, 0}, stage.group,
              {stage.group_inputs, stage.group_outputs, image.parameters.weight[s], image.parameters.bias[s], &finish},
              scratch.in, scratch.out);
}

/// The planes that the gradients of stage s read and write, in the scratch memory's lists.
template <typename T>
void list_gradient_planes(const Image<T>& image, const FusedGradients<T>& gradients, bool input_wanted, int s, int at) {
  const FusedStage& stage = image.chain.stages[s];
  list_planes(image.output_diff(s, at), stage.out_channels, image.scratch.out_diff);
  if (gradients.weight[s]) list_planes(image.input(s, at), stage.in_channels, image.scratch.in);
  if (input_wanted) list_planes(image.input_diff(s, at), stage.in_channels, image.scratch.in_diff);
}

/// The gradients of 1x1 stage s from pixels at .. at + pixels - 1.
template <typename T>
void pointwise_stage_backward(const Image<T>& image, const FusedGradients<T>& gradients, bool input_wanted, int s,
                              int at, int pixels) {
  const FusedStage& stage = image.chain.stages[s];
  const Scratch<T>& scratch = image.scratch;
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const Region region = {1, pixels, 0, 0};
  const Finish<T> finish = s == 0 && image.bottom_finish.any() ? image.bottom_finish : Finish<T>{};
  const bool last = s == image.chain.num_stages - 1;
  // The top's gradient: while the first stage was run again, or with the image before.
  const bool fetched = is_small<T>(image.top_pitch()) || fits_half_cache<T>(stage.out_channels * image.top_pitch());
  list_gradient_planes(image, gradients, input_wanted, s, at);
  for (int g = 0; g < stage.group; ++g) {
    const T* const* dy = scratch.out_diff + g * outputs;
    const ptrdiff_t weights = static_cast<ptrdiff_t>(g) * inputs * outputs;
    const int ahead = last && !fetched && g + 1 < stage.group ? outputs : 0;  // planes of the next group
    for (int o = 0; o < ahead; ++o) fetch_run<false>(dy[outputs + o], pixels);
    if (gradients.weight[s]) {
      multiply_gradient<T>(region, inputs, scratch.in + g * inputs, outputs, dy, scratch.weight_diff[s] + weights,
                           image.fetch);
    }
    if (gradients.bias[s]) bias_gradient<T>(region, outputs, dy, scratch.bias_diff[s] + g * outputs);
    if (input_wanted) {
      multiply<T>(region, 1, {outputs, inputs, image.shared.transposed[s] + weights, nullptr, &finish}, dy,
                  scratch.in_diff + g * inputs);
    }
  }
}

/// The gradients of stage s, which is spatial, from the whole image.
template <typename T>
void spatial_stage_backward(const Image<T>& image, const FusedGradients<T>& gradients, bool input_wanted, int s) {
  const FusedStage& stage = image.chain.stages[s];
  const Scratch<T>& scratch = image.scratch;
  const Planes<const T> output_diff = image.output_diff(s, 0);
  const Finish<T> finish = s == 0 ? image.bottom_finish : Finish<T>{};
  T* weight_diff = gradients.weight[s] ? scratch.weight_diff[s] : nullptr;
  if (takes_every_second<T>(stage)) {
    list_gradient_planes(image, gradients, input_wanted, s, 0);
    T** in_diff = input_wanted ? scratch.in_diff : nullptr;
    if (is_packed<T>(stage)) {
      packed_backward<T>(stage, scratch.in, scratch.out_diff, image.shared.transposed[s], weight_diff, in_diff,
                         finish.streamed, scratch.spatial, image.fetch);
    } else {
      const auto run = stage.group_inputs == 2 ? strided_backward<T, 2> : strided_backward<T, 4>;
      run(stage, scratch.in, scratch.out_diff, image.parameters.weight[s], weight_diff, in_diff, finish.streamed);
    }
  } else if (is_direct<T>(stage)) {
    const Planes<T> input_diff = input_wanted ? image.input_diff(s, 0) : Planes<T>{nullptr, 0, nullptr};
    direct_backward(stage, image.input(s, 0), output_diff, image.parameters.weight[s], image.shared.transposed[s],
                    weight_diff, input_diff, finish, scratch.bottom_diff, scratch.spatial.zeros);
  } else {
    if (weight_diff) {
      spatial_weight_gradient(stage, image.input(s, 0), output_diff, weight_diff, scratch.spatial, image.fetch);
    }
    if (input_wanted) {
      spatial_input_gradient(stage, output_diff, image.shared.transposed[s], image.input_diff(s, 0), scratch.spatial);
    }
  }
  for (int c = 0; c < stage.out_channels && gradients.bias[s]; ++c) {
    const T* plane = output_diff.at(c);
    bias_gradient<T>({1, stage.out_height * stage.out_width, 0, 0}, 1, &plane, scratch.bias_diff[s] + c);
  }
}

}  // namespace
}  // namespace caffe_layers
