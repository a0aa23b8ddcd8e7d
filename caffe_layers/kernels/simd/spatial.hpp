#pragma once

// Stages with a spatial kernel, a stride or padding, for one image.
//
// A stage with stride s reads row y * s + ky * dilation - pad. Splitting the padded input into s x s planes, by row and column modulo s,
// makes every tap (ky, kx) a plane shifted by whole pixels: the stage becomes a product over channels and taps, without any stride.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/depthwise.hpp"

namespace caffe_layers {
namespace {

/// Channel planes `pitch` apart, read or written through a permutation when `order` is set.
template <typename T>
struct Planes {
  T* data;
  ptrdiff_t pitch;
  const int* order;
  T* at(int channel) const { return data + (order ? order[channel] : channel) * pitch; }
};

/// The split planes of some rows of a channel.
struct Split {
  int stride, pad, rows, columns, pitch;
  ptrdiff_t margin, phase_size, channel_size;
  unsigned used;  ///< bit a: some tap reads rows (and columns) a modulo stride
};

template <typename T>
inline Split make_split(int stride, int pad, int rows, int columns, unsigned used) {
  Split split = {stride, pad, rows, columns, round_up(columns, kLanes<T>), 0, 0, 0, used};
  split.margin = round_up(pad, kLanes<T>) - pad;  // aligns the stores when the stride is 1
  split.phase_size = static_cast<ptrdiff_t>(rows) * split.pitch;
  split.channel_size = split.phase_size * stride * stride + 3 * kLanes<T>;
  return split;
}

/// Furthest a tap reaches in the split planes.
inline int reach(const FusedStage& stage) { return (stage.kernel - 1) * stage.dilation / stage.stride; }

inline unsigned used_phases(const FusedStage& stage) {
  unsigned used = 0;
  for (int k = 0; k < stage.kernel; ++k) used |= 1u << (k * stage.dilation % stage.stride);
  return used;
}

/// How many rows to split at once, so that `channels` of them stay in the second-level cache.
inline int split_rows(int channels, int pitch, int stride, int reach, int rows) {
  const int kElements = 32768;
  return larger(1, smaller(rows, kElements / (channels * stride * stride * pitch) - reach));
}

template <typename T>
Split input_split(const FusedStage& stage) {
  const int columns = stage.out_width + reach(stage);
  const int rows =
      split_rows(stage.group_inputs, round_up(columns, kLanes<T>), stage.stride, reach(stage), stage.out_height);
  return make_split<T>(stage.stride, stage.pad, rows + reach(stage), columns, used_phases(stage));
}

/// The output gradient is split too, to go back to the input: stride 1, and a border as wide as the reach.
template <typename T>
Split output_split(const FusedStage& stage) {
  const int rows = (stage.in_height - 1 + stage.pad) / stage.stride + 1;
  const int columns = (stage.in_width - 1 + stage.pad) / stage.stride + 1 + reach(stage);
  const int band = split_rows(stage.group_outputs, round_up(columns, kLanes<T>), 1, reach(stage), rows);
  return make_split<T>(1, reach(stage), band + reach(stage), columns, 1);
}

template <typename T>
inline void copy_row(const T* from, int stride, int count, T* to) {
  if (stride == 1) {
    int i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) store(to + i, load(from + i));
    if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
  } else {
    for (int i = 0; i < count; ++i) to[i] = from[i * stride];
  }
}

/// Fills rows first_row .. first_row + rows - 1 of the split planes from a height x width plane. The columns of the border are left
/// as they are: zero once, with fill.
template <typename T>
void split_plane(const Split& split, const T* plane, int height, int width, int first_row, int rows, T* to) {
  const int s = split.stride;
  for (int a = 0; a < s; ++a) {
    for (int b = 0; b < s; ++b) {
      if (!(split.used >> a & split.used >> b & 1)) continue;
      const int before = larger(0, (split.pad - b + s - 1) / s);
      const int after = smaller(split.columns, width - 1 + split.pad - b < 0 ? 0 : (width - 1 + split.pad - b) / s + 1);
      T* phase = to + split.margin + (a * s + b) * split.phase_size;
      for (int row = 0; row < rows; ++row) {
        const int y = (first_row + row) * s + a - split.pad;
        T* line = phase + row * split.pitch;
        if (y < 0 || y >= height) {
          for (int i = 0; i < split.columns; ++i) line[i] = T(0);
        } else {
          copy_row(plane + static_cast<ptrdiff_t>(y) * width + before * s + b - split.pad, s, after - before, line + before);
        }
      }
    }
  }
}

template <typename T>
inline void fill(T* to, ptrdiff_t count, T value) {
  for (ptrdiff_t i = 0; i < count; ++i) to[i] = value;
}

inline bool is_depthwise_3x3(const FusedStage& stage) {
  return stage.group_inputs == 1 && stage.group_outputs == 1 && stage.kernel == 3 && stage.stride == 1 && stage.dilation == 1;
}

/// Scratch of one thread for one spatial stage.
template <typename T>
struct SpatialScratch {
  T* split;           ///< max(group_inputs x input_split, group_outputs x output_split)
  T* phase;           ///< group_inputs x the rows of one phase of the input gradient
  const T** taps;     ///< pointers: max(group_inputs, group_outputs) x kernel x kernel
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
void split_group(const FusedStage& stage, const Split& split, const Planes<const T>& in, int group, int first_row, int rows,
                 const SpatialScratch<T>& scratch) {
  const T** taps = scratch.taps;
  for (int i = 0; i < stage.group_inputs; ++i) {
    T* channel = scratch.split + i * split.channel_size;
    split_plane<T>(split, in.at(group * stage.group_inputs + i), stage.in_height, stage.in_width, first_row, rows, channel);
    for (int t = 0; t < stage.kernel * stage.kernel; ++t) *taps++ = channel + split.margin + scratch.offset[t];
  }
}

/// Weights for spatial_input_gradient: group after group, phase after phase.
template <typename T>
void pack_spatial_transposed(const FusedStage& stage, const T* weight, T* packed, const SpatialScratch<T>& scratch) {
  const int taps = stage.kernel * stage.kernel, size = stage.group_inputs * taps;
  sort_taps(stage, output_split<T>(stage), scratch);
  for (int group = 0; group < stage.group; ++group) {
    for (int phase = 0; phase < stage.stride * stage.stride; ++phase) {
      const int begin = scratch.phase_begin[phase], count = scratch.phase_begin[phase + 1] - begin;
      pack(weight + static_cast<ptrdiff_t>(group) * stage.group_outputs * size, stage.group_inputs, taps, stage.group_outputs, size,
           scratch.tap + begin, count, packed);
      packed += stage.group_inputs * stage.group_outputs * count;
    }
  }
}

/// Rows first_row .. first_row + rows - 1 of the output; `out` begins at first_row.
template <typename T>
void spatial_forward(const FusedStage& stage, const Planes<const T>& in, const T* weight, const T* packed, const T* bias, int first_row,
                     int rows, const Planes<T>& out, const SpatialScratch<T>& scratch) {
  const Split split = input_split<T>(stage);
  const int taps = stage.kernel * stage.kernel, band = split.rows - reach(stage), outputs = stage.group_outputs;
  sort_taps(stage, split, scratch);
  fill(scratch.split, stage.group_inputs * split.channel_size, T(0));
  for (int row = 0; row < rows; row += band) {
    const Region region = {smaller(band, rows - row), stage.out_width, split.pitch, stage.out_width};
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * stage.out_width;
    for (int group = 0; group < stage.group; ++group) {
      split_group(stage, split, in, group, first_row + row, region.rows + reach(stage), scratch);
      if (is_depthwise_3x3(stage)) {
        depthwise<T, false>(region, scratch.taps[0], weight + group * taps, bias ? bias[group] : T(0), out.at(group) + at);
      } else {
        for (int o = 0; o < outputs; ++o) scratch.planes[o] = out.at(group * outputs + o) + at;
        multiply(region, stage.group_inputs * taps, scratch.taps, outputs, packed + group * outputs * stage.group_inputs * taps,
                 bias ? bias + group * outputs : nullptr, scratch.planes);
      }
    }
  }
}

/// weight_diff += the gradient of one image.
template <typename T>
void spatial_weight_gradient(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff, T* weight_diff,
                             const SpatialScratch<T>& scratch) {
  const Split split = input_split<T>(stage);
  const int taps = stage.kernel * stage.kernel, band = split.rows - reach(stage), outputs = stage.group_outputs;
  sort_taps(stage, split, scratch);
  fill(scratch.split, stage.group_inputs * split.channel_size, T(0));
  for (int row = 0; row < stage.out_height; row += band) {
    const Region region = {smaller(band, stage.out_height - row), stage.out_width, split.pitch, stage.out_width};
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * stage.out_width;
    for (int group = 0; group < stage.group; ++group) {
      split_group(stage, split, in, group, row, region.rows + reach(stage), scratch);
      if (is_depthwise_3x3(stage)) {
        depthwise_gradient<T>(region, scratch.taps[0], out_diff.at(group) + at, weight_diff + group * taps);
      } else {
        for (int o = 0; o < outputs; ++o) scratch.planes[o] = const_cast<T*>(out_diff.at(group * outputs + o) + at);
        multiply_gradient<T>(region, stage.group_inputs * taps, scratch.taps, outputs, scratch.planes,
                             weight_diff + group * outputs * stage.group_inputs * taps);
      }
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

/// One phase of one group: `rows` are indices in the split input, the split gradient begins at first_row.
template <typename T>
void input_gradient_phase(const FusedStage& stage, const Split& split, int group, int phase, int first_row, PhaseRange rows,
                          const T* packed, const Planes<T>& in_diff, const SpatialScratch<T>& scratch) {
  const int s = stage.stride, far = reach(stage), inputs = stage.group_inputs;
  const int first_tap = scratch.phase_begin[phase], last_tap = scratch.phase_begin[phase + 1];
  const PhaseRange columns = phase_range(stage, phase % s, stage.in_width);
  const int width = columns.end - columns.begin, count = rows.end - rows.begin;
  const ptrdiff_t origin = split.margin + (rows.begin - first_row + far) * split.pitch + columns.begin + far;
  const T** taps = scratch.taps;
  for (int o = 0; o < stage.group_outputs; ++o) {
    const T* channel = scratch.split + o * split.channel_size + origin;
    for (int t = first_tap; t < last_tap; ++t) *taps++ = channel - scratch.offset[scratch.tap[t]];
  }
  const ptrdiff_t at = static_cast<ptrdiff_t>(rows.begin * s + phase / s - stage.pad) * stage.in_width + columns.begin * s + phase % s -
                       stage.pad;
  for (int i = 0; i < inputs; ++i) {
    scratch.planes[i] = s == 1 ? in_diff.at(group * inputs + i) + at : scratch.phase + static_cast<ptrdiff_t>(i) * count * width;
  }
  multiply<T>({count, width, split.pitch, width}, stage.group_outputs * (last_tap - first_tap), scratch.taps, inputs, packed, nullptr,
              scratch.planes);
  if (s == 1) return;
  for (int i = 0; i < inputs; ++i) {
    const T* from = scratch.planes[i];
    for (int row = 0; row < count; ++row) {
      T* to = in_diff.at(group * inputs + i) + at + static_cast<ptrdiff_t>(row) * s * stage.in_width;
      for (int column = 0; column < width; ++column) to[column * s] = *from++;
    }
  }
}

/// in_diff = the gradient to the input of one image.
template <typename T>
void spatial_input_gradient(const FusedStage& stage, const Planes<const T>& out_diff, const T* weight, const T* packed,
                            const Planes<T>& in_diff, const SpatialScratch<T>& scratch) {
  const Split split = output_split<T>(stage);
  const int s = stage.stride, far = reach(stage), taps = stage.kernel * stage.kernel, band = split.rows - far;
  const int all_rows = (stage.in_height - 1 + stage.pad) / s + 1;
  sort_taps(stage, split, scratch);
  fill(scratch.split, stage.group_outputs * split.channel_size, T(0));
  if (s > 1) {  // some input pixels may be read by no tap
    for (int c = 0; c < stage.in_channels; ++c) fill(in_diff.at(c), static_cast<ptrdiff_t>(stage.in_height) * stage.in_width, T(0));
  }
  for (int row = 0; row < all_rows; row += band) {
    for (int group = 0; group < stage.group; ++group) {
      for (int o = 0; o < stage.group_outputs; ++o) {
        split_plane<T>(split, out_diff.at(group * stage.group_outputs + o), stage.out_height, stage.out_width, row, band + far,
                       scratch.split + o * split.channel_size);
      }
      if (is_depthwise_3x3(stage)) {
        const PhaseRange all = phase_range(stage, 0, stage.in_height);
        const int begin = larger(row, all.begin), end = smaller(row + band, all.end);
        depthwise<T, true>({end - begin, stage.in_width, split.pitch, stage.in_width},
                           scratch.split + split.margin + (begin - row) * split.pitch + stage.pad, weight + group * taps, T(0),
                           in_diff.at(group) + static_cast<ptrdiff_t>(begin - stage.pad) * stage.in_width);
        continue;
      }
      for (int phase = 0; phase < s * s; ++phase) {
        const PhaseRange all = phase_range(stage, phase / s, stage.in_height);
        const PhaseRange rows = {larger(row, all.begin), smaller(row + band, all.end)};
        const int first_tap = scratch.phase_begin[phase];
        if (scratch.phase_begin[phase + 1] > first_tap && rows.begin < rows.end) {
          input_gradient_phase(stage, split, group, phase, row, rows,
                               packed + (group * taps + first_tap) * stage.group_inputs * stage.group_outputs, in_diff, scratch);
        }
      }
    }
  }
}

}  // namespace
}  // namespace caffe_layers
