#pragma once

// The two micro-kernels. Both see a group convolution as a matrix product over lists of channel planes, so that a
// permutation, and the shifts of a 3x3 kernel, are only other pointers in the list.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// The pixels to go through: `rows` rows of `width`; a row begins `in_pitch` after the one before in the inputs,
/// `out_pitch` in the outputs.
struct Region {
  int rows, width;
  ptrdiff_t in_pitch, out_pitch;
};

/// Channel planes `pitch` apart, read or written through a permutation when `order` is set.
template <typename T>
struct Planes {
  T* data;
  ptrdiff_t pitch;
  const int* order;
  T* at(int channel) const { return data + (order ? order[channel] : channel) * pitch; }
};

/// What is done to results before they are stored: those of the last stage get the residual and the ReLU.
template <typename T>
struct Finish {
  const T* residual;  ///< laid out as top; null: none
  const T* top;
  bool relu;

  const T* residual_at(const T* to) const { return residual + (to - top); }
  bool any() const { return residual || relu; }
};

template <typename T>
inline Vector<T> positive_part(Vector<T> x) {
  return x < Vector<T>{} ? Vector<T>{} : x;
}

/// Does it to `count` results that are stored already.
template <typename T>
inline void finish_run(const Finish<T>& finish, T* to, ptrdiff_t count) {
  if (!finish.any()) return;
  for (ptrdiff_t i = 0; i < count; i += kLanes<T>) {
    const int lanes = static_cast<int>(smaller<ptrdiff_t>(count - i, kLanes<T>));
    Vector<T> y = load_first(to + i, lanes);
    if (finish.residual) y += load_first(finish.residual_at(to + i), lanes);
    store_first(to + i, finish.relu ? positive_part<T>(y) : y, lanes);
  }
}

/// Outputs computed together: with 3 vectors of pixels, the accumulators fill 32 (AVX-512) or 16 registers.
constexpr int kOutputBlock = kVectorBytes == 64 ? 8 : 4;

/// Size of the next block when `left` outputs are left: full blocks, then powers of two.
inline int next_block(int left) {
  int block = kOutputBlock;
  while (block > left) block /= 2;
  return block;
}

/// Weights in the order in which multiply reads them: for each block of outputs, for each input, the block's weights.
/// Input i * num_taps + t of output o is weight[o * output_stride + i * input_stride + tap[t]].
template <typename T>
inline void pack(const T* weight, int outputs, ptrdiff_t output_stride, int inputs, ptrdiff_t input_stride,
                 const int* tap, int num_taps, T* packed) {
  for (int o = 0, block; o < outputs; o += block) {
    block = next_block(outputs - o);
    for (int i = 0; i < inputs; ++i) {
      for (int t = 0; t < num_taps; ++t) {
        for (int b = 0; b < block; ++b) *packed++ = weight[(o + b) * output_stride + i * input_stride + tap[t]];
      }
    }
  }
}

/// BLOCK outputs x VECTORS vectors of pixels, or the first `lanes` pixels of one vector.
template <typename T, int BLOCK, int VECTORS, bool WHOLE>
inline void multiply_block(int inputs, const T* const* in, ptrdiff_t in_at, const T* packed, const T* bias,
                           T* const* out, ptrdiff_t out_at, int lanes, const Finish<T>& finish) {
  Vector<T> sum[BLOCK][VECTORS];
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) sum[b][v] = bias ? broadcast(bias[b]) : Vector<T>{};
  }
  for (int i = 0; i < inputs; ++i, packed += BLOCK) {
    const T* from = in[i] + in_at;
    Vector<T> x[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) x[v] = WHOLE ? load(from + v * kLanes<T>) : load_first(from, lanes);
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
      const Vector<T> weight = broadcast(packed[b]);
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) sum[b][v] += weight * x[v];
    }
  }
  if (finish.residual) {
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) {
        const T* from = finish.residual_at(out[b] + out_at + v * kLanes<T>);
        sum[b][v] += WHOLE ? load(from) : load_first(from, lanes);
      }
    }
  }
  if (finish.relu) {
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) sum[b][v] = positive_part<T>(sum[b][v]);
    }
  }
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) {
      T* to = out[b] + out_at + v * kLanes<T>;
      if (WHOLE) {
        store(to, sum[b][v]);
      } else {
        store_first(to, sum[b][v], lanes);
      }
    }
  }
}

/// All outputs for one column of pixels.
template <typename T, int VECTORS, bool WHOLE>
inline void multiply_column(int inputs, const T* const* in, ptrdiff_t in_at, int outputs, const T* packed,
                            const T* bias, T* const* out, ptrdiff_t out_at, int lanes, const Finish<T>& finish) {
  for (int o = 0, block; o < outputs; o += block, packed += inputs * block) {
    block = next_block(outputs - o);
    const T* b = bias ? bias + o : nullptr;
    if (block == 8)
      multiply_block<T, kOutputBlock, VECTORS, WHOLE>(inputs, in, in_at, packed, b, out + o, out_at, lanes, finish);
    if (block == 4) multiply_block<T, 4, VECTORS, WHOLE>(inputs, in, in_at, packed, b, out + o, out_at, lanes, finish);
    if (block == 2) multiply_block<T, 2, VECTORS, WHOLE>(inputs, in, in_at, packed, b, out + o, out_at, lanes, finish);
    if (block == 1) multiply_block<T, 1, VECTORS, WHOLE>(inputs, in, in_at, packed, b, out + o, out_at, lanes, finish);
  }
}

/// out[o] = bias[o] + sum over i of weight(o, i) in[i], with the weights packed, and finished; bias may be null.
template <typename T>
void multiply(const Region& region, int inputs, const T* const* in, int outputs, const T* packed, const T* bias,
              T* const* out, const Finish<T>& finish) {
  for (int row = 0; row < region.rows; ++row) {
    const ptrdiff_t in_row = row * region.in_pitch, out_row = row * region.out_pitch;
    int column = 0, vectors;
    for (; (vectors = (region.width - column) / kLanes<T>) > 0; column += vectors * kLanes<T>) {
      vectors = vectors == 4 ? 2 : smaller(vectors, 3);  // 4 = 2 + 2: a single vector wastes half the arithmetic units
      const ptrdiff_t in_at = in_row + column, out_at = out_row + column;
      if (vectors == 3) multiply_column<T, 3, true>(inputs, in, in_at, outputs, packed, bias, out, out_at, 0, finish);
      if (vectors == 2) multiply_column<T, 2, true>(inputs, in, in_at, outputs, packed, bias, out, out_at, 0, finish);
      if (vectors == 1) multiply_column<T, 1, true>(inputs, in, in_at, outputs, packed, bias, out, out_at, 0, finish);
    }
    const int left = region.width - column;
    if (left)
      multiply_column<T, 1, false>(inputs, in, in_row + column, outputs, packed, bias, out, out_row + column, left,
                                   finish);
  }
}

/// Outputs and inputs of one block of multiply_gradient: together one sum per lane, so that one reduce gives them all;
/// at most 8 inputs, for which there are pointers in registers.
constexpr int kGradientOutputs = kVectorBytes >= 32 ? 4 : 2;
template <typename T, int OUTPUTS>
constexpr int kGradientInputs = kLanes<T> <= OUTPUTS      ? 1
                                : kLanes<T> / OUTPUTS < 8 ? kLanes<T> / OUTPUTS
                                                          : 8;

template <typename T, int OUTPUTS, int INPUTS>
inline void gradient_block(const Region& region, const T* const* in, const T* const* out_diff, T* weight_diff,
                           int inputs) {
  Vector<T> sum[OUTPUTS * INPUTS] = {};
  const auto accumulate = [&](const Vector<T>* x, const Vector<T>* dy) {
#pragma GCC unroll 4
    for (int o = 0; o < OUTPUTS; ++o) {
#pragma GCC unroll 8
      for (int i = 0; i < INPUTS; ++i) sum[o * INPUTS + i] += dy[o] * x[i];
    }
  };
  for (int row = 0; row < region.rows; ++row) {
    const ptrdiff_t in_row = row * region.in_pitch, out_row = row * region.out_pitch;
    int column = 0;
    Vector<T> x[INPUTS], dy[OUTPUTS];
    for (; column + kLanes<T> <= region.width; column += kLanes<T>) {
#pragma GCC unroll 8
      for (int i = 0; i < INPUTS; ++i) x[i] = load(in[i] + in_row + column);
#pragma GCC unroll 4
      for (int o = 0; o < OUTPUTS; ++o) dy[o] = load(out_diff[o] + out_row + column);
      accumulate(x, dy);
    }
    const int left = region.width - column;
    if (left) {
#pragma GCC unroll 8
      for (int i = 0; i < INPUTS; ++i) x[i] = load_first(in[i] + in_row + column, left);
#pragma GCC unroll 4
      for (int o = 0; o < OUTPUTS; ++o) dy[o] = load_first(out_diff[o] + out_row + column, left);
      accumulate(x, dy);
    }
  }
  T total[kLanes<T>];
  horizontal_sums<T, OUTPUTS * INPUTS>(sum, total);
#pragma GCC unroll 4
  for (int o = 0; o < OUTPUTS; ++o) {
#pragma GCC unroll 8
    for (int i = 0; i < INPUTS; ++i) weight_diff[o * inputs + i] += total[o * INPUTS + i];
  }
}

/// From input i on: as many full blocks as there are, then blocks half as wide, and so on.
template <typename T, int OUTPUTS, int INPUTS>
inline void gradient_rows(const Region& region, int inputs, int i, const T* const* in, const T* const* out_diff,
                          T* weight_diff) {
  for (; i + INPUTS <= inputs; i += INPUTS) {
    gradient_block<T, OUTPUTS, INPUTS>(region, in + i, out_diff, weight_diff + i, inputs);
  }
  if constexpr (INPUTS > 1) gradient_rows<T, OUTPUTS, INPUTS / 2>(region, inputs, i, in, out_diff, weight_diff);
}

/// The same for outputs, from output o on.
template <typename T, int OUTPUTS>
inline void gradient_columns(const Region& region, int inputs, const T* const* in, int outputs, int o,
                             const T* const* out_diff, T* weight_diff) {
  for (; o + OUTPUTS <= outputs; o += OUTPUTS) {
    gradient_rows<T, OUTPUTS, kGradientInputs<T, OUTPUTS>>(region, inputs, 0, in, out_diff + o,
                                                           weight_diff + o * inputs);
  }
  if constexpr (OUTPUTS > 1) {
    gradient_columns<T, OUTPUTS / 2>(region, inputs, in, outputs, o, out_diff, weight_diff);
  }
}

/// weight_diff[o * inputs + i] += sum over the region's pixels of out_diff[o] in[i].
template <typename T>
void multiply_gradient(const Region& region, int inputs, const T* const* in, int outputs, const T* const* out_diff,
                       T* weight_diff) {
  gradient_columns<T, kGradientOutputs>(region, inputs, in, outputs, 0, out_diff, weight_diff);
}

/// bias_diff[o] += sum over the region's pixels of out_diff[o].
template <typename T>
void bias_gradient(const Region& region, int outputs, const T* const* out_diff, T* bias_diff) {
  for (int o = 0; o < outputs; ++o) {
    Vector<T> sum = {};
    for (int row = 0; row < region.rows; ++row) {
      const T* from = out_diff[o] + row * region.out_pitch;
      int column = 0;
      for (; column + kLanes<T> <= region.width; column += kLanes<T>) sum += load(from + column);
      if (column < region.width) sum += load_first(from + column, region.width - column);
    }
    for (int lane = 0; lane < kLanes<T>; ++lane) bias_diff[o] += sum[lane];
  }
}

}  // namespace
}  // namespace caffe_layers
