#pragma once

// The two micro-kernels. Both see a group convolution as a matrix product over lists of channel planes, so that a
// permutation, and the shifts of a 3x3 kernel, are only other pointers in the list.

#include "caffe_layers/kernels/simd/finish.hpp"

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

/// Outputs computed together at most, here and for their weights' gradients; parts of a stage's outputs are whole
/// blocks of so many. And vectors of pixels, of which a strip has a multiple.
constexpr int kMostOutputs = kVectorBytes == 64 ? 8 : 4;
constexpr int kMostVectors = kVectorBytes == 64 ? 4 : 3;

/// Outputs and vectors of pixels computed together, a column. 16 registers hold 4 x 3 sums. With AVX-512's 32, 8 sums
/// are enough for two multiply-add units that take 4 cycles, and fastest for few inputs, which the first-level cache
/// keeps (more took up to 1.2 times as long, Zen 4); wide columns read more of each plane at a time, and have less to
/// do per result where it is finished; tall ones read planes less often, of which first convolutions have nine for
/// each.
constexpr int output_block(int inputs, bool plain) { return inputs == 0 && !plain ? kMostOutputs : 4; }
constexpr int column_vectors(int inputs, bool plain) {
  const bool few = plain && inputs > 0 && inputs <= 10;
  return kVectorBytes == 64 && (few || output_block(inputs, plain) == kMostOutputs) ? 2 : kMostVectors;
}

/// Columns from the results being computed to the lines that the caches begin to fetch for results to come.
constexpr int kColumnsAhead = 8;

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
      if (finish.whole && !finish.streamed) __builtin_prefetch(to + kColumnsAhead * VECTORS * kLanes<T> + v, 1);
      if (!finish.ahead) continue;
      const T* from = finish.ahead + finish.ahead_lines * (to - finish.top + v);
      __builtin_prefetch(from, 0, 2);
      if (finish.ahead_lines > 1) __builtin_prefetch(from + kCacheLine / sizeof(T), 0, 2);
    }
  }
}

/// sum += BLOCK rows of weights, `row` apart, times INPUTS inputs at `in_at`.
template <typename T, int BLOCK, int VECTORS, bool WHOLE, int INPUTS>
ALWAYS_INLINE void add_products(const T* const* in, ptrdiff_t in_at, const T* weight, ptrdiff_t row, int lanes,
                                Vector<T> (*sum)[VECTORS]) {
#pragma GCC unroll 16
  for (int i = 0; i < INPUTS; ++i) {
    const T* from = in[i] + in_at;
    Vector<T> x[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) x[v] = WHOLE ? load(from + v * kLanes<T>) : load_first(from, lanes);
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
      const Vector<T> factor = broadcast(weight[b * row + i]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[b][v] += factor * x[v];
    }
  }
}

template <typename T, int BLOCK, int VECTORS, bool WHOLE>
ALWAYS_INLINE void finish_columns(const Finish<T>& finish, T* const* out, int column, int lanes,
                                  Vector<T> (*sum)[VECTORS]) {
  if (!finish.any()) return;
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      sum[b][v] = finished<T, WHOLE>(finish, sum[b][v], out[b] + column + v * kLanes<T>, lanes);
    }
  }
}

template <typename T, int BLOCK, int VECTORS, bool WHOLE, bool STREAMED>
ALWAYS_INLINE void store_columns(T* const* out, int column, int lanes, const Vector<T> (*sum)[VECTORS]) {
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      T* to = out[b] + column + v * kLanes<T>;
      if (!WHOLE) {
        store_first(to, sum[b][v], lanes);
      } else if (STREAMED) {
        stream(to, sum[b][v]);
      } else {
        store(to, sum[b][v]);
      }
    }
  }
}

/// A product's terms: outputs from `inputs` planes, and what multiply does with them.
template <typename T>
struct Product {
  int inputs, outputs;
  const T *weight, *bias;
  const Finish<T>* finish;

  /// That of the outputs from output o on.
  Product from(int o) const {
    return {inputs, outputs - o, weight + static_cast<ptrdiff_t>(o) * inputs, bias ? bias + o : nullptr, finish};
  }
  /// That of the next group.
  Product next() const {
    return {inputs, outputs, weight + static_cast<ptrdiff_t>(outputs) * inputs, bias ? bias + outputs : nullptr,
            finish};
  }
};

/// All outputs, as far as they are whole blocks of BLOCK, for the pixels from `begin` on, as far as they are whole
/// columns of VECTORS vectors, whose end is returned; or, if not WHOLE, for the pixels up to `end`, less than a vector.
/// INPUTS and PLAIN: as for multiply_planes.
template <typename T, int INPUTS, bool PLAIN, int BLOCK, int VECTORS, bool WHOLE>
NEVER_INLINE int multiply_columns(const Product<T>& product, const T* const* in, ptrdiff_t in_at, T* const* out,
                                  ptrdiff_t out_at, int begin, int end) {
  const ptrdiff_t row = INPUTS ? INPUTS : product.inputs;
  const int lanes = end - begin;  // if not WHOLE
  int column = begin;
  const T *weight = product.weight, *bias = PLAIN ? nullptr : product.bias;
  for (int left = product.outputs; left >= BLOCK; left -= BLOCK, weight += BLOCK * row, out += BLOCK) {
    T* to[BLOCK];
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) to[b] = out[b] + out_at;
    for (column = begin; column + (WHOLE ? VECTORS * kLanes<T> : 1) <= end; column += VECTORS * kLanes<T>) {
      Vector<T> sum[BLOCK][VECTORS];
      start_sums<T, BLOCK>(bias, sum);
      if (!PLAIN && product.finish->top) fetch_ahead<T, BLOCK, VECTORS>(to, column, *product.finish);
      if constexpr (INPUTS) {
        add_products<T, BLOCK, VECTORS, WHOLE, INPUTS>(in, in_at + column, weight, row, lanes, sum);
      } else {
#pragma GCC unroll 2
        for (int i = 0; i < row; ++i) {
          add_products<T, BLOCK, VECTORS, WHOLE, 1>(in + i, in_at + column, weight + i, row, lanes, sum);
        }
      }
      if (!PLAIN) finish_columns<T, BLOCK, VECTORS, WHOLE>(*product.finish, to, column, lanes, sum);
      if (!PLAIN && product.finish->streamed) {
        store_columns<T, BLOCK, VECTORS, WHOLE, true>(to, column, lanes, sum);
      } else {
        store_columns<T, BLOCK, VECTORS, WHOLE, false>(to, column, lanes, sum);
      }
    }
    if (bias) bias += BLOCK;
  }
  return column;
}

/// Whole blocks of BLOCK outputs for a strip of `width` pixels, in columns of VECTORS vectors; what is left in narrower
/// ones.
template <typename T, int INPUTS, bool PLAIN, int BLOCK, int VECTORS>
inline void multiply_strip(const Product<T>& product, const T* const* in, ptrdiff_t in_at, T* const* out,
                           ptrdiff_t out_at, int begin, int width) {
  const int end =
      multiply_columns<T, INPUTS, PLAIN, BLOCK, VECTORS, true>(product, in, in_at, out, out_at, begin, width);
  if (end == width) return;
  if constexpr (VECTORS > 1) {
    multiply_strip<T, INPUTS, PLAIN, BLOCK, VECTORS - 1>(product, in, in_at, out, out_at, end, width);
  } else {
    multiply_columns<T, INPUTS, PLAIN, BLOCK, 1, false>(product, in, in_at, out, out_at, end, width);
  }
}

/// All outputs for a strip: whole blocks, then blocks half as large.
template <typename T, int INPUTS, bool PLAIN, int BLOCK = output_block(INPUTS, PLAIN)>
inline void multiply_blocks(const Product<T>& product, const T* const* in, ptrdiff_t in_at, T* const* out,
                            ptrdiff_t out_at, int width) {
  const int done = product.outputs / BLOCK * BLOCK;
  if (done > 0) {
    constexpr int kVectors = BLOCK == output_block(INPUTS, PLAIN) ? column_vectors(INPUTS, PLAIN) : 4;
    multiply_strip<T, INPUTS, PLAIN, BLOCK, kVectors>(product, in, in_at, out, out_at, 0, width);
  }
  if constexpr (BLOCK > 1) {
    if (done == product.outputs) return;
    multiply_blocks<T, INPUTS, PLAIN, BLOCK / 2>(product.from(done), in, in_at, out + done, out_at, width);
  }
}

/// Pixels treated for all outputs before the next: whole columns whose inputs take half of a first-level cache of 32
/// KB.
template <typename T>
inline int strip_pixels(int inputs) {
  constexpr int kColumn = kMostVectors * kLanes<T>;
  return larger(1, 16384 / static_cast<int>(sizeof(T)) / inputs / kColumn) * kColumn;
}

/// multiply for INPUTS inputs (0: any number) and, if PLAIN, without bias and finish.
template <typename T, int INPUTS, bool PLAIN>
void multiply_planes(const Region& region, int groups, const Product<T>& first, const T* const* in, T* const* out) {
  Product<T> product = first;
  if (INPUTS) product.inputs = INPUTS;
  const int strip = strip_pixels<T>(product.inputs);
  for (int g = 0; g < groups; ++g, in += product.inputs, out += product.outputs, product = product.next()) {
    for (int row = 0; row < region.rows; ++row) {
      for (int column = 0; column < region.width; column += strip) {
        const int width = smaller(strip, region.width - column);
        const ptrdiff_t in_at = row * region.in_pitch + column, out_at = row * region.out_pitch + column;
        multiply_blocks<T, INPUTS, PLAIN>(product, in, in_at, out, out_at, width);
      }
    }
  }
}

/// multiply_planes for so many inputs: where they are known when compiled, a group on a small map takes three quarters
/// of the time. Those are the channels per branch of the paper's networks.
template <typename T, bool PLAIN>
auto choose_multiply(int inputs) {
  if (inputs == 8) return multiply_planes<T, 8, PLAIN>;
  if (inputs == 10) return multiply_planes<T, 10, PLAIN>;
  if (inputs == 16) return multiply_planes<T, 16, PLAIN>;
  if (inputs == 20) return multiply_planes<T, 20, PLAIN>;
  if (inputs == 24) return multiply_planes<T, 24, PLAIN>;
  if (inputs == 32) return multiply_planes<T, 32, PLAIN>;
  return multiply_planes<T, 0, PLAIN>;
}

/// The products of `groups` groups, one after the other: out[o] = bias[o] + sum over i of weight[o * inputs + i] in[i],
/// finished; bias may be null. `first`: the terms of the first group.
template <typename T>
void multiply(const Region& region, int groups, const Product<T>& first, const T* const* in, T* const* out) {
  const bool plain = !first.bias && !first.finish->top;
  const auto run = plain ? choose_multiply<T, true>(first.inputs) : choose_multiply<T, false>(first.inputs);
  run(region, groups, first, in, out);
}

}  // namespace
}  // namespace caffe_layers
