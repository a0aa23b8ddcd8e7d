#pragma once

// A stage with stride s reads row y * s + ky * dilation - pad. Splitting the padded input into s x s planes, by row and
// column modulo s, makes every tap (ky, kx) a plane shifted by whole pixels: the stage becomes a product over channels
// and taps, without any stride.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/lanes.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"

namespace caffe_layers {
namespace {

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

/// Fills rows first_row .. first_row + rows - 1 of the split planes from a height x width plane. The columns of the
/// border are left as they are: zero once, with fill. `ahead` is the plane that will be split next.
template <typename T>
void split_plane(const Split& split, const T* plane, const T* ahead, int height, int width, int first_row, int rows,
                 T* to) {
  const int s = split.stride;
  for (int a = 0; a < s; ++a) {
    if (!(split.used >> a & 1)) continue;
    for (int row = 0; row < rows; ++row) {
      const int y = (first_row + row) * s + a - split.pad;
      const ptrdiff_t at = static_cast<ptrdiff_t>(y) * width;
      const bool inside = y >= 0 && y < height;
      for (int x = 0; inside && x < width; x += kCacheLine / static_cast<int>(sizeof(T)))
        __builtin_prefetch(ahead + at + x);
      for (int b = 0; b < s; ++b) {
        if (!(split.used >> b & 1)) continue;
        const int before = larger(0, (split.pad - b + s - 1) / s);
        const int last = width - 1 + split.pad - b;
        const int after = smaller(split.columns, last < 0 ? 0 : last / s + 1);
        T* line = to + split.margin + (a * s + b) * split.phase_size + row * split.pitch;
        if (inside) {
          copy_row(plane + at + before * s + b - split.pad, s, after - before, line + before);
        } else {
          fill(line, split.columns, T(0));
        }
      }
    }
  }
}

/// The reverse for one row: to[x] = phases[(x + pad) % stride][...], each phase from its first pixel inside on.
template <typename T>
void merge_row(const T* const* phases, int stride, int width, T* to) {
  if (stride == 2) {
    for (int x = 0; x < width; x += 2 * kLanes<T>) {
      const int left = width - x;
      store_interleaved(to + x, load_first(phases[0] + x / 2, smaller((left + 1) / 2, kLanes<T>)),
                        load_first(phases[1] + x / 2, smaller(left / 2, kLanes<T>)), smaller(left, 2 * kLanes<T>));
    }
    return;
  }
  for (int phase = 0; phase < stride; ++phase) {
    for (int i = 0; phase + i * stride < width; ++i) to[phase + i * stride] = phases[phase][i];
  }
}

}  // namespace
}  // namespace caffe_layers
