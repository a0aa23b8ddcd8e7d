#pragma once

// The weight gradients of a 3x3 stage on small maps. The outputs' gradients are transposed, so that those of a pixel
// are a vector, and each pixel of the input that met it is one factor: no lanes are left to be added up, which with so
// few pixels takes longer than the products.

#include "caffe_layers/kernels/simd/direct.hpp"
#include "caffe_layers/kernels/simd/split.hpp"

namespace caffe_layers {
namespace {

/// A vector of outputs: 8 floats, AVX2's whole vector or half of AVX-512's (of which some processors take two in the
/// time of a whole).
template <typename T>
struct OutputsOf {
  static constexpr int kBytes = kVectorBytes < 32 ? kVectorBytes : 32, kCount = kBytes / static_cast<int>(sizeof(T));
  using Type = typename VectorOf<T, kBytes>::Type;
  using Unaligned = typename VectorOf<T, kBytes>::Unaligned;

  static Type load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
  static void store(T* to, Type value) { *reinterpret_cast<Unaligned*>(to) = value; }
};

constexpr int kSmallPixels = 64;  // of the output at most
constexpr int kPadded = 18;       // rows and columns that an input has room for, with its border of one zero
constexpr int kPaddedPixels = kPadded * kPadded;

/// Whether a stage's weight gradients are made here; with 256 pixels they take as long as in direct_gradient.hpp.
template <typename T>
bool is_small_3x3(const FusedStage& stage) {
  return is_direct<T>(stage) && stage.group_outputs % OutputsOf<T>::kCount == 0 &&
         stage.out_height * stage.out_width <= kSmallPixels && stage.in_height + 2 <= kPadded &&
         stage.in_width + 2 <= kPadded;
}

/// panel[p][o] = out_diff[o][p].
template <typename T>
void transpose_outputs(const T* const* out_diff, int pixels, T* panel) {
  using Outputs = OutputsOf<T>;
  constexpr int kCount = Outputs::kCount;
  int p = 0;
  for (; p + kCount <= pixels; p += kCount) {
    typename Outputs::Type rows[kCount];
#pragma GCC unroll 8
    for (int o = 0; o < kCount; ++o) rows[o] = Outputs::load(out_diff[o] + p);
    transpose<T>(rows);
#pragma GCC unroll 8
    for (int o = 0; o < kCount; ++o) Outputs::store(panel + (p + o) * kCount, rows[o]);
  }
  for (; p < pixels; ++p) {
    for (int o = 0; o < kCount; ++o) panel[p * kCount + o] = out_diff[o][p];
  }
}

/// Copies a plane into one with a border.
template <typename T>
void pad_plane(const T* plane, int height, int width, T* padded) {
  using Run = OutputsOf<T>;
  T* to = padded + kPadded + 1;
  for (int y = 0; y < height; ++y, plane += width, to += kPadded) {
    int x = 0;
    for (; x + Run::kCount <= width; x += Run::kCount) Run::store(to + x, Run::load(plane + x));
    for (; x < width; ++x) to[x] = plane[x];
  }
}

/// sums[input][tap][output] += the gradients of the weights between INPUTS inputs, whose padded planes follow each
/// other, and the panel's outputs.
template <typename T, int INPUTS>
void add_small_gradient(const FusedStage& stage, const T* padded, const T* panel, T* sums) {
  using Outputs = OutputsOf<T>;
  typename Outputs::Type sum[INPUTS][9] = {};
  for (int y = 0; y < stage.out_height; ++y) {
    const T* x = padded + y * stage.stride * kPadded;
    for (int column = 0; column < stage.out_width; ++column, x += stage.stride, panel += Outputs::kCount) {
      const typename Outputs::Type dy = Outputs::load(panel);
#pragma GCC unroll 2
      for (int i = 0; i < INPUTS; ++i) {
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) sum[i][t] += x[i * kPaddedPixels + t / 3 * kPadded + t % 3] * dy;
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < INPUTS; ++i) {
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t, sums += Outputs::kCount) Outputs::store(sums, Outputs::load(sums) + sum[i][t]);
  }
}

/// sums += the gradient of one image, in the order of add_small_gradient; outputs_first puts that right.
template <typename T>
void small_weight_gradient(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                           T* sums) {
  constexpr int kOutputs = OutputsOf<T>::kCount, kInputs = kVectorBytes == 64 ? 2 : 1;  // 9 sums each, in registers
  const int inputs = stage.group_inputs, pixels = stage.out_height * stage.out_width;
  alignas(kCacheLine) T padded[kInputs * kPaddedPixels], panel[kSmallPixels * kOutputs];
  fill(padded, kInputs * kPaddedPixels, T(0));
  for (int first = 0; first < stage.out_channels; first += kOutputs) {
    const T* dy[kOutputs];
    for (int o = 0; o < kOutputs; ++o) dy[o] = out_diff.at(first + o);
    transpose_outputs(dy, pixels, panel);
    const int channel = first / stage.group_outputs * inputs;
    for (int i = 0, count; i < inputs; i += count, sums += count * 9 * kOutputs) {
      count = smaller(kInputs, inputs - i);
      for (int k = 0; k < count; ++k) {
        pad_plane(in.at(channel + i + k), stage.in_height, stage.in_width, padded + k * kPaddedPixels);
      }
      const auto run = count == kInputs ? add_small_gradient<T, kInputs> : add_small_gradient<T, 1>;
      run(stage, padded, panel, sums);
    }
  }
}

/// The sums in the order of the weights.
template <typename T>
void outputs_first(const FusedStage& stage, T* sums) {
  constexpr int kOutputs = OutputsOf<T>::kCount;
  const int weights = 9 * stage.group_inputs;  // of an output
  T copy[9 * kDirectPlanes * kOutputs];
  for (int first = 0; first < stage.out_channels; first += kOutputs, sums += kOutputs * weights) {
    for (int i = 0; i < kOutputs * weights; ++i) copy[i] = sums[i];
    for (int o = 0; o < kOutputs; ++o) {
      for (int i = 0; i < weights; ++i) sums[o * weights + i] = copy[i * kOutputs + o];
    }
  }
}

}  // namespace
}  // namespace caffe_layers
