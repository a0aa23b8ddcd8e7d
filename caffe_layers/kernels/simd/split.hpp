#pragma once

// A stage with stride s reads row y * s + ky * dilation - pad. Splitting the padded input into s x s planes, by row and
// column modulo s, makes every tap (ky, kx) a plane shifted by whole pixels: the stage becomes a product over channels
// and taps, without any stride.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/lanes.hpp"
#include "caffe_layers/kernels/simd/multiply_gradient.hpp"

namespace caffe_layers {
namespace {

/// The split planes of some rows of a channel. `linear`: the rows lie so close that all are treated as one, and what is
/// computed in the gaps is thrown away; else they begin at whole vectors.
struct Split {
  int stride, pad, rows, columns, pitch;
  bool linear, bands;  ///< bands: not all rows at once
  ptrdiff_t margin, phase_size, channel_size;
  unsigned used;  ///< bit a: some tap reads rows (and columns) a modulo stride
};

/// Furthest a tap reaches in the split planes.
inline int reach(const FusedStage& stage) { return (stage.kernel - 1) * stage.dilation / stage.stride; }

/// Whether rows of `width` results are treated as one line: if they are no whole vectors, if there are no gaps between
/// them, and if each is a single vector of AVX2, whose 4 outputs would be too few sums (multiply.hpp).
template <typename T>
inline bool joins_rows(int width, int reach) {
  return width % kLanes<T> != 0 || reach == 0 || (kVectorBytes == 32 && width == kLanes<T>);
}

/// Planes for results of `rows` x `width`, split for as many rows at once as leave those of `channels` channels in the
/// second-level cache.
template <typename T>
Split make_split(int stride, int pad, int reach, int rows, int width, int channels, unsigned used) {
  const int kElements = 32768;
  Split split = {stride, pad, 0, width + reach, width + reach, joins_rows<T>(width, reach), false, 0, 0, 0, used};
  if (!split.linear) split.pitch = round_up(split.columns, kLanes<T>);
  split.margin = round_up(pad, kLanes<T>) - pad;  // aligns the stores when the stride is 1
  split.rows = larger(1, smaller(rows, kElements / (channels * stride * stride * split.pitch) - reach)) + reach;
  split.bands = split.rows < rows + reach;
  split.phase_size = static_cast<ptrdiff_t>(split.rows) * split.pitch;
  split.channel_size = split.phase_size * stride * stride + 3 * kLanes<T>;
  return split;
}

template <typename T>
Split input_split(const FusedStage& stage) {
  unsigned used = 0;
  for (int k = 0; k < stage.kernel; ++k) used |= 1u << (k * stage.dilation % stage.stride);
  return make_split<T>(stage.stride, stage.pad, reach(stage), stage.out_height, stage.out_width, stage.group_inputs,
                       used);
}

/// The output gradient is split too, to go back to the input: stride 1, and a border as wide as the reach.
template <typename T>
Split output_split(const FusedStage& stage) {
  const int rows = (stage.in_height - 1 + stage.pad) / stage.stride + 1;
  const int width = (stage.in_width - 1 + stage.pad) / stage.stride + 1;
  return make_split<T>(1, reach(stage), reach(stage), rows, width, stage.group_outputs, 1);
}

template <typename T>
inline void fill(T* to, ptrdiff_t count, T value) {
  for (ptrdiff_t i = 0; i < count; ++i) to[i] = value;
}

/// to[i] = from[i * stride].
template <typename T>
inline void copy_row(const T* from, int stride, int count, T* to) {
  if (stride > 2) {
    for (int i = 0; i < count; ++i) to[i] = from[i * stride];
    return;
  }
  int i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    store(to + i, stride == 1 ? load(from + i) : load_even(from + 2 * i, kLanes<T>));
  }
  const int left = count - i;
  if (left > 0) store_first(to + i, stride == 1 ? load_first(from + i, left) : load_even(from + 2 * i, left), left);
}

template <typename T>
inline void copy_rows(const T* from, ptrdiff_t from_pitch, int rows, int width, T* to, ptrdiff_t to_pitch) {
  for (int row = 0; row < rows; ++row) copy_row(from + row * from_pitch, 1, width, to + row * to_pitch);
}

/// Fills rows first_row .. first_row + rows - 1 of the split planes from a height x width plane. The columns of the
/// border, and its rows where there are no bands, are left as they are: zero once, with fill. `ahead` is the plane that
/// will be split next.
template <typename T>
void split_plane(const Split& split, const T* plane, const T* ahead, int height, int width, int first_row, int rows,
                 T* to) {
  const int s = split.stride;
  for (int a = 0; a < s; ++a) {
    for (int b = 0; b < s; ++b) {
      if (!(split.used >> a & split.used >> b & 1)) continue;
      const int before = larger(0, (split.pad - b + s - 1) / s), last = width - 1 + split.pad - b;
      const int after = smaller(split.columns, last < 0 ? 0 : last / s + 1);
      T* line = to + split.margin + (a * s + b) * split.phase_size;
      for (int row = 0; row < rows; ++row, line += split.pitch) {
        const int y = (first_row + row) * s + a - split.pad;
        const ptrdiff_t at = static_cast<ptrdiff_t>(y) * width;
        if (y < 0 || y >= height) {
          if (split.bands) fill(line, split.columns, T(0));
          continue;
        }
        copy_row(plane + at + before * s + b - split.pad, s, after - before, line + before);
        for (int x = 0; x < width; x += kCacheLine / static_cast<int>(sizeof(T))) __builtin_prefetch(ahead + at + x);
      }
    }
  }
}

/// The reverse for one row: to[x] = phases[x % stride][at + x / stride], or zero where the phase is null.
template <typename T>
void merge_row(const T* const* phases, ptrdiff_t at, const T* zeros, int stride, int width, T* to) {
  if (stride == 1) return copy_row(phases[0] + at, 1, width, to);
  if (stride == 2) {
    const T *first = phases[0] ? phases[0] + at : zeros, *second = phases[1] ? phases[1] + at : zeros;
    int x = 0;
    for (; x + 2 * kLanes<T> <= width; x += 2 * kLanes<T>) {
      store_interleaved(to + x, to_pair_order<T>(load(first + x / 2)), to_pair_order<T>(load(second + x / 2)),
                        2 * kLanes<T>);
    }
    const int left = width - x;
    if (left > 0) {
      store_interleaved(to + x, to_pair_order<T>(load_first(first + x / 2, (left + 1) / 2)),
                        to_pair_order<T>(load_first(second + x / 2, left / 2)), left);
    }
    return;
  }
  for (int phase = 0; phase < stride; ++phase) {
    const T* from = phases[phase] ? phases[phase] + at : zeros;
    for (int i = 0; phase + i * stride < width; ++i) to[phase + i * stride] = from[i];
  }
}

}  // namespace
}  // namespace caffe_layers
