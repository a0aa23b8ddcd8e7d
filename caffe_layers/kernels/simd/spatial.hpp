#pragma once

// Stages with a spatial kernel, a stride or padding, for one image: splits a group's planes and multiplies.

#include "caffe_layers/kernels/simd/split.hpp"

namespace caffe_layers {
namespace {

/// Scratch of one thread for one spatial stage.
template <typename T>
struct SpatialScratch {
  T* split;           ///< max(group_inputs x input_split, group_outputs x output_split), or packed.hpp's planes
  T* staging;         ///< planes in the split's pitch: group_outputs, or stride x group_inputs
  const T** taps;     ///< pointers: max(group_inputs, group_outputs) x kernel x kernel
  T* zeros;           ///< a row, for direct.hpp
  T** planes;         ///< pointers: max(group_inputs, group_outputs)
  ptrdiff_t* offset;  ///< kernel x kernel: where in the split planes a tap reads
  int* tap;           ///< kernel x kernel: the taps, phase after phase
  int* phase_begin;   ///< stride x stride + 1: where a phase's taps begin in `tap`
};

/// Fills offset, tap and phase_begin.
template <typename T>
void sort_taps(const FusedStage& stage, const Split& split, const SpatialScratch<T>& scratch) {
  const int s = stage.stride, k = stage.kernel;
  int count = 0;
  for (int phase = 0; phase < s * s; ++phase) {
    scratch.phase_begin[phase] = count;
    for (int t = 0; t < k * k; ++t) {
      const int y = t / k * stage.dilation, x = t % k * stage.dilation;
      if (y % s * s + x % s != phase) continue;
      scratch.tap[count++] = t;
      scratch.offset[t] = y / s * split.pitch + x / s + (split.stride == s ? phase * split.phase_size : 0);
    }
  }
  scratch.phase_begin[s * s] = count;
}

/// Splits the input planes of one group and lists them in scratch.taps by channel and tap.
template <typename T>
void split_group(const FusedStage& stage, const Split& split, const Planes<const T>& in, int group, int first_row,
                 int rows, const SpatialScratch<T>& scratch) {
  const T** taps = scratch.taps;
  for (int i = 0; i < stage.group_inputs; ++i) {
    T* channel = scratch.split + i * split.channel_size;
    const int c = group * stage.group_inputs + i;
    split_plane<T>(split, in.at(c), in.at(smaller(c + 1, stage.in_channels - 1)), stage.in_height, stage.in_width,
                   first_row, rows, channel);
    for (int t = 0; t < stage.kernel * stage.kernel; ++t) *taps++ = channel + split.margin + scratch.offset[t];
  }
}

/// Weights for spatial_input_gradient: group after group, phase after phase. Those of groups first .. last - 1.
template <typename T>
void transpose_spatial_weights(const FusedStage& stage, const T* weight, int first, int last, T* transposed,
                               const SpatialScratch<T>& scratch) {
  const int taps = stage.kernel * stage.kernel, size = stage.group_inputs * taps;
  sort_taps(stage, output_split<T>(stage), scratch);
  transposed += static_cast<ptrdiff_t>(first) * stage.group_outputs * size;
  for (int group = first; group < last; ++group) {
    for (int phase = 0; phase < stage.stride * stage.stride; ++phase) {
      const int begin = scratch.phase_begin[phase], count = scratch.phase_begin[phase + 1] - begin;
      gather_weights(weight + static_cast<ptrdiff_t>(group) * stage.group_outputs * size, stage.group_inputs, taps,
                     stage.group_outputs, size, scratch.tap + begin, count, transposed);
      transposed += stage.group_inputs * stage.group_outputs * count;
    }
  }
}

/// The pixels to go through for `rows` x `width` results, whose own rows are `pitch` apart.
inline Region region_of(const Split& split, int rows, int width, int pitch) {
  if (split.linear) return {1, (rows - 1) * split.pitch + width, 0, 0};
  return {rows, width, split.pitch, pitch};
}

/// Rows first_row .. first_row + rows - 1 of the output; `out` begins at first_row.
template <typename T>
void spatial_forward(const FusedStage& stage, const Planes<const T>& in, const T* weight, const T* bias, int first_row,
                     int rows, const Planes<T>& out, const Finish<T>& finish, const SpatialScratch<T>& scratch) {
  const Split split = input_split<T>(stage);
  const int inputs = stage.group_inputs * stage.kernel * stage.kernel, outputs = stage.group_outputs;
  const int band = split.rows - reach(stage), width = stage.out_width;
  const bool staged = split.linear && split.pitch != width;
  const Finish<T> none = {};
  sort_taps(stage, split, scratch);
  fill(scratch.split, stage.group_inputs * split.channel_size, T(0));
  for (int row = 0; row < rows; row += band) {
    const int count = smaller(band, rows - row);
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * width;
    for (int group = 0; group < stage.group; ++group) {
      const int first = group * outputs;
      split_group(stage, split, in, group, first_row + row, count + reach(stage), scratch);
      for (int o = 0; o < outputs; ++o) {
        scratch.planes[o] = staged ? scratch.staging + o * split.phase_size : out.at(first + o) + at;
      }
      multiply<T>(region_of(split, count, width, width), 1,
                  {inputs, outputs, weight + static_cast<ptrdiff_t>(first) * inputs, bias ? bias + first : nullptr,
                   staged ? &none : &finish},
                  scratch.taps, scratch.planes);
      for (int o = 0; o < outputs && staged; ++o) {
        T* to = out.at(first + o) + at;
        copy_rows(scratch.planes[o], split.pitch, count, width, to, width);
        finish_run<T>(finish, to, to, static_cast<ptrdiff_t>(count) * width);
      }
    }
  }
}

/// weight_diff += the gradient of one image. `fetch` goes on meanwhile.
template <typename T>
void spatial_weight_gradient(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                             T* weight_diff, const SpatialScratch<T>& scratch, FetchMeanwhile<T>* fetch) {
  const Split split = input_split<T>(stage);
  const int inputs = stage.group_inputs * stage.kernel * stage.kernel, outputs = stage.group_outputs;
  const int band = split.rows - reach(stage), width = stage.out_width;
  const bool staged = split.linear && split.pitch != width;
  sort_taps(stage, split, scratch);
  fill(scratch.split, stage.group_inputs * split.channel_size, T(0));
  if (staged) fill(scratch.staging, outputs * split.phase_size, T(0));  // the gaps must count nothing
  for (int row = 0; row < stage.out_height; row += band) {
    const int count = smaller(band, stage.out_height - row);
    for (int group = 0; group < stage.group; ++group) {
      const int first = group * outputs;
      split_group(stage, split, in, group, row, count + reach(stage), scratch);
      for (int o = 0; o < outputs; ++o) {
        const T* from = out_diff.at(first + o) + static_cast<ptrdiff_t>(row) * width;
        T* copy = scratch.staging + o * split.phase_size;
        if (staged) copy_rows(from, width, count, width, copy, split.pitch);
        scratch.planes[o] = staged ? copy : const_cast<T*>(from);
      }
      multiply_gradient<T>(region_of(split, count, width, width), inputs, scratch.taps, outputs, scratch.planes,
                           weight_diff + static_cast<ptrdiff_t>(first) * inputs, fetch);
    }
  }
}

/// First and one-past-last index, in the split input, of the rows (or columns) that a phase has in an input of `size`.
struct PhaseRange {
  int begin, end;
};
inline PhaseRange phase_range(const FusedStage& stage, int phase, int size) {
  const int s = stage.stride, last = size - 1 + stage.pad - phase;
  return {(stage.pad - phase + s - 1) / s, last < 0 ? 0 : last / s + 1};
}

/// scratch.planes[i] = what one phase of input channel i gets. `rows` are indices in the split input, the gradient
/// planes (one per output channel of the group) begin at first_row; the results' rows are `pitch` apart.
template <typename T>
void input_gradient_phase(const FusedStage& stage, const Split& split, int phase, int first_row, PhaseRange rows,
                          int pitch, const T* weight, const Planes<const T>& gradient,
                          const SpatialScratch<T>& scratch) {
  const PhaseRange columns = phase_range(stage, phase % stage.stride, stage.in_width);
  const int far = reach(stage), first_tap = scratch.phase_begin[phase], last_tap = scratch.phase_begin[phase + 1];
  const ptrdiff_t origin = static_cast<ptrdiff_t>(rows.begin - first_row + far) * split.pitch + columns.begin + far;
  const T** taps = scratch.taps;
  for (int o = 0; o < stage.group_outputs; ++o) {
    const T* channel = gradient.at(o) + origin;
    for (int t = first_tap; t < last_tap; ++t) *taps++ = channel - scratch.offset[scratch.tap[t]];
  }
  const Finish<T> none = {};
  multiply<T>(region_of(split, rows.end - rows.begin, columns.end - columns.begin, pitch), 1,
              {stage.group_outputs * (last_tap - first_tap), stage.group_inputs, weight, nullptr, &none}, scratch.taps,
              scratch.planes);
}

/// The rows of one group's input gradient that are row phase `a`: `rows` as above.
template <typename T>
void input_gradient_rows(const FusedStage& stage, const Split& split, int group, int a, int first_row, PhaseRange rows,
                         const T* weight, const Planes<const T>& gradient, const Planes<T>& in_diff,
                         const SpatialScratch<T>& scratch) {
  const int s = stage.stride, inputs = stage.group_inputs, width = stage.in_width;
  const ptrdiff_t at = static_cast<ptrdiff_t>(rows.begin * s + a - stage.pad) * width;
  const bool staged = s > 1 || (split.linear && split.pitch != width);
  for (int b = 0; b < s; ++b) {
    const int phase = a * s + b;
    if (scratch.phase_begin[phase] == scratch.phase_begin[phase + 1] && staged) continue;
    for (int i = 0; i < inputs; ++i) {
      scratch.planes[i] =
          staged ? scratch.staging + (b * inputs + i) * split.phase_size : in_diff.at(group * inputs + i) + at;
    }
    input_gradient_phase(stage, split, phase, first_row, rows, staged ? split.pitch : width,
                         weight + scratch.phase_begin[phase] * inputs * stage.group_outputs, gradient, scratch);
  }
  const T* phases[kFusedMaxStride];
  for (int i = 0; i < inputs && staged; ++i) {
    for (int j = 0; j < s; ++j) {  // the phase of pixel j of a row; zero where no tap reads it
      const int b = (stage.pad + j) % s, phase = a * s + b;
      const bool read = scratch.phase_begin[phase] < scratch.phase_begin[phase + 1];
      phases[j] = read ? scratch.staging + (b * inputs + i) * split.phase_size : nullptr;
    }
    T* to = in_diff.at(group * inputs + i) + at;
    for (int row = 0; row < rows.end - rows.begin; ++row, to += static_cast<ptrdiff_t>(s) * width) {
      merge_row(phases, row * split.pitch, scratch.zeros, s, width, to);
    }
  }
}

/// in_diff = the gradient to the input of one image; weights from transpose_spatial_weights.
template <typename T>
void spatial_input_gradient(const FusedStage& stage, const Planes<const T>& out_diff, const T* weight,
                            const Planes<T>& in_diff, const SpatialScratch<T>& scratch) {
  const Split split = output_split<T>(stage);
  const int s = stage.stride, outputs = stage.group_outputs, band = split.rows - reach(stage);
  const int all_rows = (stage.in_height - 1 + stage.pad) / s + 1;
  const ptrdiff_t weights = static_cast<ptrdiff_t>(stage.group_inputs) * outputs * stage.kernel * stage.kernel;
  sort_taps(stage, split, scratch);
  fill(scratch.split, outputs * split.channel_size, T(0));
  const Planes<const T> gradient = {scratch.split + split.margin, split.channel_size, nullptr};
  for (int row = 0; row < all_rows; row += band) {
    for (int group = 0; group < stage.group; ++group) {
      for (int o = 0; o < outputs; ++o) {
        const int c = group * outputs + o;
        split_plane<T>(split, out_diff.at(c), out_diff.at(smaller(c + 1, stage.out_channels - 1)), stage.out_height,
                       stage.out_width, row, split.rows, scratch.split + o * split.channel_size);
      }
      for (int a = 0; a < s; ++a) {
        const PhaseRange all = phase_range(stage, a, stage.in_height);
        const PhaseRange rows = {larger(row, all.begin), smaller(row + band, all.end)};
        if (rows.begin < rows.end) {
          input_gradient_rows(stage, split, group, a, row, rows, weight + group * weights, gradient, in_diff, scratch);
        }
      }
    }
  }
}

}  // namespace
}  // namespace caffe_layers
