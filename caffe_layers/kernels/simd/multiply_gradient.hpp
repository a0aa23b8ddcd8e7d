#pragma once

// The gradients of a matrix product over lists of channel planes (multiply.hpp) to its weights and biases.

#include "caffe_layers/kernels/simd/fetch.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"

namespace caffe_layers {
namespace {

/// Outputs and inputs of one block of multiply_gradient: together one sum per lane, so that one reduce gives them all;
/// at most 8 inputs, for which there are pointers in registers.
constexpr int kGradientOutputs = kVectorBytes >= 32 ? 4 : 2;
template <typename T, int OUTPUTS>
constexpr int kGradientInputs = kLanes<T> <= OUTPUTS      ? 1
                                : kLanes<T> / OUTPUTS < 8 ? kLanes<T> / OUTPUTS
                                                          : 8;

/// to[i] += from[i], as few instructions as there are 128 bits.
template <typename T, int COUNT>
ALWAYS_INLINE void add_values(T* to, const T* from) {
  constexpr int kPart = 16 / static_cast<int>(sizeof(T));
  if constexpr (COUNT % kPart == 0) {
    typedef T Part __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; i += kPart) {
      *reinterpret_cast<Part*>(to + i) += *reinterpret_cast<const Part*>(from + i);
    }
  } else {
    for (int i = 0; i < COUNT; ++i) to[i] += from[i];
  }
}

template <typename T, int OUTPUTS, int INPUTS>
inline void gradient_block(const Region& region, const T* const* in, const T* const* out_diff, T* weight_diff,
                           int inputs, FetchMeanwhile<T>* fetch) {
  fetch->add(static_cast<ptrdiff_t>(OUTPUTS) * INPUTS * region.rows * region.width);
  Vector<T> sum[OUTPUTS * INPUTS] = {};
  const auto accumulate = [&](const Vector<T>* x, const Vector<T>* dy) {
#pragma GCC unroll 4
    for (int o = 0; o < OUTPUTS; ++o) {
      const Vector<T> factor = in_register<T>(dy[o]);
#pragma GCC unroll 8
      for (int i = 0; i < INPUTS; ++i) sum[o * INPUTS + i] += factor * x[i];
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
  alignas(kCacheLine) T total[kLanes<T>];
  horizontal_sums<T, OUTPUTS * INPUTS>(sum, total);
#pragma GCC unroll 4
  for (int o = 0; o < OUTPUTS; ++o) add_values<T, INPUTS>(weight_diff + o * inputs, total + o * INPUTS);
}

/// From input i on: as many full blocks as there are, then blocks half as wide, and so on.
template <typename T, int OUTPUTS, int INPUTS>
inline void gradient_rows(const Region& region, int inputs, int i, const T* const* in, const T* const* out_diff,
                          T* weight_diff, FetchMeanwhile<T>* fetch) {
  for (; i + INPUTS <= inputs; i += INPUTS) {
    gradient_block<T, OUTPUTS, INPUTS>(region, in + i, out_diff, weight_diff + i, inputs, fetch);
  }
  if constexpr (INPUTS > 1) gradient_rows<T, OUTPUTS, INPUTS / 2>(region, inputs, i, in, out_diff, weight_diff, fetch);
}

/// The same for outputs, from output o on.
template <typename T, int OUTPUTS>
inline void gradient_columns(const Region& region, int inputs, const T* const* in, int outputs, int o,
                             const T* const* out_diff, T* weight_diff, FetchMeanwhile<T>* fetch) {
  for (; o + OUTPUTS <= outputs; o += OUTPUTS) {
    gradient_rows<T, OUTPUTS, kGradientInputs<T, OUTPUTS>>(region, inputs, 0, in, out_diff + o,
                                                           weight_diff + o * inputs, fetch);
  }
  if constexpr (OUTPUTS > 1) {
    gradient_columns<T, OUTPUTS / 2>(region, inputs, in, outputs, o, out_diff, weight_diff, fetch);
  }
}

/// Lanes whose index has bit STEP set change places: those of `a` with those STEP lower of `b`.
template <typename T, int STEP, typename V>
ALWAYS_INLINE void exchange(V* a, V* b) {
  constexpr int kCount = sizeof(V) / sizeof(T);
  typename VectorOf<T, sizeof(V)>::Index low = {}, high = {};
  for (int lane = 0; lane < kCount; ++lane) {
    low[lane] = lane & STEP ? kCount + lane - STEP : lane;
    high[lane] = lane & STEP ? kCount + lane : lane + STEP;
  }
  const V first = __builtin_shuffle(*a, *b, low);
  *b = __builtin_shuffle(*a, *b, high);
  *a = first;
}

/// As many vectors of T as one has lanes: lane l of vector i becomes lane i of vector l.
template <typename T, int STEP = 1, typename V>
inline void transpose(V* rows) {
  constexpr int kCount = sizeof(V) / sizeof(T);
  if constexpr (STEP < kCount) {
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      if (!(i & STEP)) exchange<T, STEP>(rows + i, rows + i + STEP);
    }
    transpose<T, 2 * STEP>(rows);
  }
}

/// Values of a panel: a quarter of a first-level cache of 32 KB.
template <typename T>
constexpr int kPanel = 8192 / sizeof(T);

/// panel[p][i] = in[i][p] for VECTORS vectors of inputs, of which there are `inputs`; the others are zero.
template <typename T, int VECTORS>
inline void fill_panel(int inputs, const T* const* in, ptrdiff_t in_at, int pixels, T* panel) {
  for (int v = 0; v < VECTORS; ++v) {
    for (int p = 0; p < pixels; p += kLanes<T>) {
      Vector<T> rows[kLanes<T>];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<T>; ++i) {
        const int input = v * kLanes<T> + i;
        rows[i] = input >= inputs           ? Vector<T>{}
                  : p + kLanes<T> <= pixels ? load(in[input] + in_at + p)
                                            : load_first(in[input] + in_at + p, pixels - p);
      }
      transpose<T>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<T>; ++i) store(panel + ((p + i) * VECTORS + v) * kLanes<T>, rows[i]);
    }
  }
}

/// Adds the first `lanes` lanes to what is there.
template <typename T>
inline void add_first(T* to, Vector<T> value, int lanes) {
  if (lanes >= kLanes<T>) {
    store(to, load(to) + value);
  } else {
    store_first(to, load_first(to, lanes) + value, lanes);
  }
}

/// The gradients of BLOCK outputs' weights for the panel's inputs. A single vector has two sums, for even and odd
/// pixels: the units must not wait for each other.
template <typename T, int BLOCK, int VECTORS>
inline void panel_gradient(int pixels, const T* panel, const T* const* out_diff, ptrdiff_t out_at, T* weight_diff,
                           int inputs, int columns) {
  constexpr int kPixels = 3 - VECTORS;
  const T* dy[BLOCK];
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) dy[b] = out_diff[b] + out_at;
  Vector<T> sum[BLOCK][2] = {};
  int p = 0;
#pragma GCC unroll 4
  for (; p + kPixels <= pixels; p += kPixels, panel += 2 * kLanes<T>) {
    const Vector<T> x[2] = {load(panel), load(panel + kLanes<T>)};
#pragma GCC unroll 8
    for (int b = 0; b < BLOCK; ++b) {
      sum[b][0] += broadcast(dy[b][p]) * x[0];
      sum[b][1] += broadcast(dy[b][p + kPixels - 1]) * x[1];
    }
  }
#pragma GCC unroll 8
  for (int b = 0; b < BLOCK; ++b) {
    T* to = weight_diff + static_cast<ptrdiff_t>(b) * inputs;
    if (VECTORS == 2) {
      add_first(to, sum[b][0], kLanes<T>);
      add_first(to + kLanes<T>, sum[b][1], columns - kLanes<T>);
    } else {
      if (p < pixels) sum[b][0] += broadcast(dy[b][p]) * load(panel);
      add_first(to, sum[b][0] + sum[b][1], columns);
    }
  }
}

/// Outputs of the next block when `left` are left: full blocks, then powers of two; but 4 outputs' sums of two vectors
/// would keep AVX2's multiply-add units waiting, and 6 fit its 16 registers.
template <int VECTORS>
inline int next_panel_block(int left) {
  if (VECTORS == 2 && kVectorBytes == 32 && left >= 6) return 6;
  int block = kMostOutputs;
  while (block > left) block /= 2;
  return block;
}

/// The gradients of all outputs' weights for the panel's inputs.
template <typename T, int VECTORS>
inline void panel_gradients(int pixels, const T* panel, int columns, int outputs, const T* const* out_diff,
                            ptrdiff_t out_at, T* weight_diff, int inputs, FetchMeanwhile<T>* fetch) {
  for (int o = 0, block; o < outputs; o += block) {
    block = next_panel_block<VECTORS>(outputs - o);
    fetch->add(static_cast<ptrdiff_t>(block) * columns * pixels);
    const T* const* dy = out_diff + o;
    T* to = weight_diff + static_cast<ptrdiff_t>(o) * inputs;
    if (block == 8) panel_gradient<T, kMostOutputs, VECTORS>(pixels, panel, dy, out_at, to, inputs, columns);
    if (block == 6) panel_gradient<T, 6, VECTORS>(pixels, panel, dy, out_at, to, inputs, columns);
    if (block == 4) panel_gradient<T, 4, VECTORS>(pixels, panel, dy, out_at, to, inputs, columns);
    if (block == 2) panel_gradient<T, 2, VECTORS>(pixels, panel, dy, out_at, to, inputs, columns);
    if (block == 1) panel_gradient<T, 1, VECTORS>(pixels, panel, dy, out_at, to, inputs, columns);
  }
}

/// Inputs i .. i + columns - 1 (at most VECTORS vectors) and all outputs. A panel takes as many rows as fit: each time
/// that a block's sums are added up costs as much as some ten pixels.
template <typename T, int VECTORS>
void panels_gradient(const Region& region, const T* const* in, int columns, int outputs, const T* const* out_diff,
                     T* weight_diff, int inputs, FetchMeanwhile<T>* fetch) {
  constexpr int kPixels = kPanel<T> / (VECTORS * kLanes<T>);
  const bool joined = region.out_pitch == region.width && region.width % kLanes<T> == 0;
  const int rows = joined ? larger(1, kPixels / region.width) : 1;
  alignas(kCacheLine) T panel[kPanel<T>];
  for (int row = 0; row < region.rows; row += rows) {
    const int count = smaller(rows, region.rows - row);
    for (int column = 0; column < region.width; column += kPixels) {
      const int pixels = smaller(kPixels, region.width - column);
      for (int r = 0; r < count; ++r) {
        fill_panel<T, VECTORS>(columns, in, (row + r) * region.in_pitch + column, pixels,
                               panel + r * pixels * VECTORS * kLanes<T>);
      }
      panel_gradients<T, VECTORS>(count * pixels, panel, columns, outputs, out_diff, row * region.out_pitch + column,
                                  weight_diff, inputs, fetch);
    }
  }
}

/// As gradient_columns, but with the inputs transposed: the sums then need no adding up over lanes.
template <typename T>
void transposed_gradient(const Region& region, int inputs, const T* const* in, int outputs, const T* const* out_diff,
                         T* weight_diff, FetchMeanwhile<T>* fetch) {
  for (int i = 0; i < inputs; i += 2 * kLanes<T>) {
    const int columns = smaller(2 * kLanes<T>, inputs - i);
    const auto run = columns > kLanes<T> ? panels_gradient<T, 2> : panels_gradient<T, 1>;
    run(region, in + i, columns, outputs, out_diff, weight_diff + i, inputs, fetch);
  }
}

/// Whether transposing pays: for many outputs, and if the last vector of inputs is not too empty. Blocks of 16 sums
/// (AVX-512, float) are faster still if they go on for many pixels before their lanes are added up.
template <typename T>
bool transposes(const Region& region, int inputs, int outputs) {
  const bool large_blocks = kLanes<T> >= 16;
  if (large_blocks && region.rows * region.width >= 8 * kLanes<T>) return false;
  const int eighths = large_blocks ? 7 : 6;
  return inputs >= (large_blocks ? kLanes<T> : kLanes<T> + 1) && outputs >= 8 &&
         8 * inputs >= eighths * round_up(inputs, kLanes<T>);
}

/// weight_diff[o * inputs + i] += sum over the region's pixels of out_diff[o] in[i]. `fetch` goes on meanwhile.
template <typename T>
void multiply_gradient(const Region& region, int inputs, const T* const* in, int outputs, const T* const* out_diff,
                       T* weight_diff, FetchMeanwhile<T>* fetch) {
  if (transposes<T>(region, inputs, outputs)) {
    transposed_gradient<T>(region, inputs, in, outputs, out_diff, weight_diff, fetch);
  } else {
    gradient_columns<T, kGradientOutputs>(region, inputs, in, outputs, 0, out_diff, weight_diff, fetch);
  }
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
