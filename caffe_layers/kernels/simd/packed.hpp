#pragma once

// 1x1 with stride 2 and any number of channels per branch: the shortcuts of Xception and ResNet. The pixels that it
// reads are packed side by side; what follows is a product without a stride.

#include "caffe_layers/kernels/simd/spatial.hpp"
#include "caffe_layers/kernels/simd/strided.hpp"

namespace caffe_layers {
namespace {

/// On the maps of strided.hpp, with other numbers of channels.
template <typename T>
bool is_packed(const FusedStage& stage) {
  return takes_every_second<T>(stage) && !is_strided<T>(stage);
}

/// Rows of the output treated at once: as floats, their inputs take an eighth of a second-level cache of 1 MB. Even,
/// for two may go into a vector.
inline int packed_rows(const FusedStage& stage) {
  const int rows = 32768 / (stage.group_inputs * stage.out_width) / 2 * 2;
  return smaller(stage.out_height, larger(2, rows));
}

/// From one packed plane to the next: whole vectors, and one that keeps the planes out of each other's cache sets.
template <typename T>
ptrdiff_t packed_pitch(const FusedStage& stage) {
  return round_up(packed_rows(stage) * stage.out_width, kLanes<T>) + kLanes<T>;
}

/// Lists the packed planes of one group in scratch.planes.
template <typename T>
void list_packed(const FusedStage& stage, const SpatialScratch<T>& scratch) {
  for (int i = 0; i < stage.group_inputs; ++i) scratch.planes[i] = scratch.split + i * packed_pitch<T>(stage);
}

/// Fills the packed planes of one group for output rows first_row .. first_row + rows - 1. The caches begin to fetch
/// the plane that is packed next.
template <typename T>
void pack(const FusedStage& stage, const T* const* in, int first_row, int rows, T* const* planes) {
  const Strided<T> pixels(stage);
  const int count = rows * stage.out_width;
  for (int i = 0; i < stage.group_inputs; ++i) {
    const T* next = in[smaller(i + 1, stage.group_inputs - 1)];
    for (int q = 0; q < count; q += kLanes<T>) {
      const ptrdiff_t at = pixels.first(first_row * stage.out_width + q);
      __builtin_prefetch(next + at);
      __builtin_prefetch(next + at + pixels.second());
      store(planes[i] + q, pixels.load_pixels(in[i], at, smaller(kLanes<T>, count - q)));
    }
  }
}

/// As spatial_forward, with lists of the planes of all channels; the pointers in `out` move on.
template <typename T>
void packed_forward(const FusedStage& stage, const T* const* in, const T* weight, const T* bias, int first_row,
                    int rows, T** out, const Finish<T>& finish, const SpatialScratch<T>& scratch) {
  const int inputs = stage.group_inputs, outputs = stage.group_outputs, most = packed_rows(stage);
  list_packed(stage, scratch);
  for (int g = 0; g < stage.group; ++g, in += inputs, out += outputs) {
    const Product<T> product = {inputs, outputs, weight + static_cast<ptrdiff_t>(g) * outputs * inputs,
                                bias ? bias + g * outputs : nullptr, &finish};
    for (int row = 0; row < rows; row += most) {
      const int count = smaller(most, rows - row), pixels = count * stage.out_width;
      pack(stage, in, first_row + row, count, scratch.planes);
      multiply<T>({1, pixels, 0, 0}, 1, product, scratch.planes, out);
      for (int o = 0; o < outputs; ++o) out[o] += pixels;
    }
  }
}

/// weight_diff += and in_diff = the gradients of one image; either may be null. `transposed`: a row of weights for each
/// input. The pointers in `out_diff` move on, and `fetch` goes on meanwhile.
template <typename T>
void packed_backward(const FusedStage& stage, const T* const* in, const T** out_diff, const T* transposed,
                     T* weight_diff, T* const* in_diff, bool streamed, const SpatialScratch<T>& scratch,
                     FetchMeanwhile<T>* fetch) {
  const Strided<T> pixels(stage);
  const Finish<T> none = {};
  const int inputs = stage.group_inputs, outputs = stage.group_outputs, most = packed_rows(stage);
  const int width = stage.out_width;
  list_packed(stage, scratch);
  for (int g = 0; g < stage.group; ++g, out_diff += outputs) {
    const ptrdiff_t weights = static_cast<ptrdiff_t>(g) * outputs * inputs;
    for (int row = 0; row < stage.out_height; row += most) {
      const Region region = {1, smaller(most, stage.out_height - row) * width, 0, 0};
      if (weight_diff) {
        pack(stage, in + g * inputs, row, region.width / width, scratch.planes);
        multiply_gradient<T>(region, inputs, scratch.planes, outputs, out_diff, weight_diff + weights, fetch);
      }
      if (in_diff) {
        multiply<T>(region, 1, {outputs, inputs, transposed + weights, nullptr, &none}, out_diff, scratch.planes);
        for (int i = 0; i < inputs; ++i) {
          for (int q = 0; q < region.width; q += kLanes<T>) {
            pixels.store_pixels(in_diff[g * inputs + i], pixels.first(row * width + q), load(scratch.planes[i] + q),
                                streamed);
          }
        }
      }
      for (int o = 0; o < outputs; ++o) out_diff[o] += region.width;
    }
  }
}

}  // namespace
}  // namespace caffe_layers
