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

/// The planes of all channels: those of a group follow each other, as multiply reads them.
template <typename T>
inline void list_planes(const Planes<T>& planes, int channels, T** list) {
  for (int c = 0; c < channels; ++c) list[c] = planes.at(c);
}

/// What is done to results before they are stored: those of the last stage get the residual and the ReLU.
template <typename T>
struct Finish {
  const T* residual;  ///< laid out as top; null: none
  const T* top;       ///< null: of another stage
  bool relu;
  bool streamed;   ///< is_streamed(top)
  const T* ahead;  ///< what the caches begin to fetch meanwhile, as the results' place in the top goes on; may be null

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

/// Outputs computed together: with up to 3 vectors of pixels, the accumulators fill 32 (AVX-512) or 16 registers.
constexpr int kOutputBlock = kVectorBytes == 64 ? 8 : 4;

/// Inputs from which on a column is 3 vectors wide: the weights cost less. With fewer, 2 vectors are enough sums for
/// AVX-512, whose columns have 8 outputs; AVX2's 4 outputs need 3 to keep the multiply-add units busy.
constexpr int kManyInputs = kVectorBytes == 32 ? 0 : 48;

/// Columns from the results being computed to the lines that the caches begin to fetch for results to come.
constexpr int kColumnsAhead = 8;

/// Size of the next block when `left` outputs are left: full blocks, then powers of two.
inline int next_block(int left) {
  int block = kOutputBlock;
  while (block > left) block /= 2;
  return block;
}

/// A row of weights per output, as multiply reads them, from weights in another order: input i * num_taps + t of output
/// o is weight[o * output_stride + i * input_stride + tap[t]].
template <typename T>
inline void gather_weights(const T* weight, int outputs, ptrdiff_t output_stride, int inputs, ptrdiff_t input_stride,
                           const int* tap, int num_taps, T* gathered) {
  for (int o = 0; o < outputs; ++o) {
    for (int i = 0; i < inputs; ++i) {
      for (int t = 0; t < num_taps; ++t) *gathered++ = weight[o * output_stride + i * input_stride + tap[t]];
    }
  }
}

/// Begins to fetch the lines of results some columns on, for which a store would wait, unless they are streamed; and
/// what finish.ahead has in the place of these results.
template <typename T, int BLOCK, int VECTORS>
ALWAYS_INLINE void fetch_ahead(T* const* out, int column, const Finish<T>& finish) {
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
    const T* to = out[b] + column;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS * kLanes<T>; v += kCacheLine / static_cast<int>(sizeof(T))) {
      if (!finish.streamed) __builtin_prefetch(to + kColumnsAhead * VECTORS * kLanes<T> + v, 1);
      if (finish.ahead) __builtin_prefetch(finish.ahead + (to - finish.top) + v, 0, 2);
    }
  }
}

/// BLOCK outputs for the pixels from `begin` on, as far as whole columns of VECTORS vectors go: their end is returned.
/// Or, if not WHOLE, for the first `lanes` pixels after begin.
template <typename T, int BLOCK, int VECTORS, bool WHOLE>
inline int multiply_columns(int inputs, const T* const* in, ptrdiff_t in_at, const T* weight, const T* bias,
                            T* const* out, int begin, int end, int lanes, const Finish<T>& finish) {
  const ptrdiff_t row = inputs;
  int column = begin;
  for (; column + (WHOLE ? VECTORS * kLanes<T> : 1) <= end; column += VECTORS * kLanes<T>) {
    Vector<T> sum[BLOCK][VECTORS];
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[b][v] = bias ? broadcast(bias[b]) : Vector<T>{};
    }
    if (finish.top) fetch_ahead<T, BLOCK, VECTORS>(out, column, finish);
    const T* weights = weight;
#pragma GCC unroll 2
    for (int i = 0; i < inputs; ++i, ++weights) {
      const T* from = in[i] + in_at + column;
      Vector<T> x[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) x[v] = WHOLE ? load(from + v * kLanes<T>) : load_first(from, lanes);
#pragma GCC unroll 8
      for (int b = 0; b < BLOCK; ++b) {
        const Vector<T> factor = broadcast(weights[b * row]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[b][v] += factor * x[v];
      }
    }
    if (finish.residual) {
#pragma GCC unroll 8
      for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
          const T* from = finish.residual_at(out[b] + column + v * kLanes<T>);
          sum[b][v] += WHOLE ? load(from) : load_first(from, lanes);
        }
      }
    }
    if (finish.relu) {
#pragma GCC unroll 8
      for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[b][v] = positive_part<T>(sum[b][v]);
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        T* to = out[b] + column + v * kLanes<T>;
        if (WHOLE) {
          store(to, sum[b][v], finish.streamed);
        } else {
          store_first(to, sum[b][v], lanes);
        }
      }
    }
  }
  return column;
}

/// BLOCK outputs for a strip of `width` pixels, in columns of VECTORS vectors; what is left in narrower ones.
template <typename T, int BLOCK, int VECTORS>
inline void multiply_strip(int inputs, const T* const* in, ptrdiff_t in_at, const T* weight, const T* bias,
                           T* const* out, int begin, int width, const Finish<T>& finish) {
  const int end =
      multiply_columns<T, BLOCK, VECTORS, true>(inputs, in, in_at, weight, bias, out, begin, width, 0, finish);
  if constexpr (VECTORS > 1) {
    multiply_strip<T, BLOCK, VECTORS - 1>(inputs, in, in_at, weight, bias, out, end, width, finish);
  } else {
    multiply_columns<T, BLOCK, 1, false>(inputs, in, in_at, weight, bias, out, end, width, width - end, finish);
  }
}

template <typename T, int BLOCK>
inline void multiply_strip(int inputs, const T* const* in, ptrdiff_t in_at, const T* weight, const T* bias,
                           T* const* out, ptrdiff_t out_at, int width, const Finish<T>& finish) {
  T* to[BLOCK];
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) to[b] = out[b] + out_at;
  if (BLOCK == kOutputBlock && inputs > kManyInputs) {
    multiply_strip<T, BLOCK, 3>(inputs, in, in_at, weight, bias, to, 0, width, finish);
  } else {
    multiply_strip<T, BLOCK, BLOCK == kOutputBlock ? 2 : 4>(inputs, in, in_at, weight, bias, to, 0, width, finish);
  }
}

/// Pixels treated for all outputs before the next: their inputs take half of a first-level cache of 32 KB.
template <typename T>
int strip_pixels(int inputs) {
  const int column = (inputs > kManyInputs ? 3 : 4) * kLanes<T>;
  return larger(1, 16384 / static_cast<int>(sizeof(T)) / inputs / column) * column;
}

/// out[o] = bias[o] + sum over i of weight[o * inputs + i] in[i], finished; bias may be null.
template <typename T>
void multiply(const Region& region, int inputs, const T* const* in, int outputs, const T* weight, const T* bias,
              T* const* out, const Finish<T>& finish) {
  const int strip = strip_pixels<T>(inputs);
  for (int row = 0; row < region.rows; ++row) {
    for (int column = 0; column < region.width; column += strip) {
      const int width = smaller(strip, region.width - column);
      const ptrdiff_t in_at = row * region.in_pitch + column, out_at = row * region.out_pitch + column;
      for (int o = 0, block; o < outputs; o += block) {
        block = next_block(outputs - o);
        const T *w = weight + static_cast<ptrdiff_t>(o) * inputs, *b = bias ? bias + o : nullptr;
        if (block == 8) multiply_strip<T, kOutputBlock>(inputs, in, in_at, w, b, out + o, out_at, width, finish);
        if (block == 4) multiply_strip<T, 4>(inputs, in, in_at, w, b, out + o, out_at, width, finish);
        if (block == 2) multiply_strip<T, 2>(inputs, in, in_at, w, b, out + o, out_at, width, finish);
        if (block == 1) multiply_strip<T, 1>(inputs, in, in_at, w, b, out + o, out_at, width, finish);
      }
    }
  }
}

}  // namespace
}  // namespace caffe_layers
