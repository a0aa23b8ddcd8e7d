#pragma once

// 3x3 with stride 1 or 2 and a border of one zero, for groups of few channels.

#include "caffe_layers/kernels/group_convolution_fused.hpp"
#include "caffe_layers/kernels/simd/depthwise.hpp"
#include "caffe_layers/kernels/simd/fetch.hpp"
#include "caffe_layers/kernels/simd/multiply.hpp"
#include "caffe_layers/kernels/simd/row_pairs_stride_2.hpp"

namespace caffe_layers {
namespace {

/// Input planes per group at most: as many as one set of the first-level cache holds lines, for planes are often a
/// multiple of 4 KB apart.
constexpr int kDirectPlanes = 8;

/// The same where two rows go into a vector, for such planes are small.
constexpr int kPairPlanes = 64;

/// Output rows and channels computed together: with the input rows that they need, they fill 16 (AVX-512: 32)
/// registers.
template <int STRIDE>
constexpr int kDirectRows = kVectorBytes == 64 || STRIDE == 1 ? 4 : 2;
template <int STRIDE>
constexpr int kDirectOutputs = kVectorBytes == 64 || STRIDE == 2 ? 4 : 2;

inline bool is_depthwise(const FusedStage& stage) { return stage.group_inputs * stage.group_outputs == 1; }
inline bool is_3x3(const FusedStage& stage) {
  return stage.kernel == 3 && stage.stride <= 2 && stage.pad == 1 && stage.dilation == 1;
}

/// With several channels not on maps narrower than half a vector: spatial.hpp joins their rows.
template <typename T>
bool is_direct(const FusedStage& stage) {
  const bool few_channels = stage.group_inputs <= kDirectPlanes && stage.group_outputs <= kDirectPlanes;
  return is_3x3(stage) && few_channels && (is_depthwise(stage) || 2 * stage.out_width >= kLanes<T>);
}

/// Whether two rows go into a vector.
template <typename T, int STRIDE>
inline bool in_pairs(int in_width, int out_width) {
  return out_width == kPairWidth<T> && in_width == STRIDE * out_width;
}

/// Whether such a map has as many rows as columns, as in all of the paper's networks.
template <typename T, int STRIDE>
inline bool is_square(const FusedStage& stage) {
  return stage.out_height == kPairWidth<T> && stage.in_height == STRIDE * stage.out_height;
}

/// Forward takes more channels where two rows go into a vector.
template <typename T>
bool is_direct_forward(const FusedStage& stage) {
  const bool pairs = stage.out_width == kPairWidth<T> && stage.in_width == stage.stride * stage.out_width;
  const bool fits = stage.group_inputs <= kPairPlanes && stage.group_outputs <= kPairPlanes;
  return is_direct<T>(stage) || (is_3x3(stage) && pairs && fits);
}

/// COUNT rows of a plane from row y on, of which the first and the last may lie outside: they are `zeros` then.
template <typename T, int COUNT>
class BorderedRows {
 public:
  ALWAYS_INLINE BorderedRows(const Plane<T>& plane, int y, const T* zeros)
      : inner_(plane.data + static_cast<ptrdiff_t>(y + 1) * plane.width),
        pitch_(plane.width),
        first_(y < 0 ? zeros : inner_ - pitch_),
        last_(y + COUNT > plane.height ? zeros : inner_ + (COUNT - 2) * pitch_) {}
  ALWAYS_INLINE const T* at(int line) const {
    return line == 0 ? first_ : line == COUNT - 1 ? last_ : inner_ + (line - 1) * pitch_;
  }

 private:
  const T* inner_;
  ptrdiff_t pitch_;
  const T *first_, *last_;
};

/// Rows y .. y + ROWS - 1 of OUTPUTS planes from `inputs` planes.
template <typename T, int STRIDE, int OUTPUTS, int ROWS>
inline void direct_rows(const Plane<T>* in, int inputs, const T* zeros, int y, const T* weight, const T* bias,
                        int width, T* const* out, ptrdiff_t out_at) {
  constexpr int kLines = (ROWS - 1) * STRIDE + 3;
  for_each_vector<T>(width, [&](auto edges, int column, int) {
    Vector<T> sum[OUTPUTS][ROWS];
    start_sums<T, OUTPUTS>(bias, sum);
    for (int i = 0; i < inputs; ++i) {
      const BorderedRows<T, kLines> lines(in[i], y * STRIDE - 1, zeros);
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        Vector<T> x[kLines];
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          const int ky = STRIDE == 1 || k == 0 ? k : 3 - k;  // with stride 2 first the rows that meet even lines
          if (k == 0 || (STRIDE == 2 && k == 2)) {
#pragma GCC unroll 9
            for (int l = ky; l < kLines; l += STRIDE) {
              x[l] = load_tap<T, STRIDE>(lines.at(l), in->width, column, kx, edges);
            }
          }
#pragma GCC unroll 4
          for (int o = 0; o < OUTPUTS; ++o) {
            const Vector<T> value = broadcast(weight[9 * (o * inputs + i) + 3 * ky + kx]);
#pragma GCC unroll 4
            for (int row = 0; row < ROWS; ++row) sum[o][row] += value * x[row * STRIDE + ky];
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int o = 0; o < OUTPUTS; ++o) {
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; ++row) {
        T* to = out[o] + out_at + static_cast<ptrdiff_t>(row) * width + column;
        const Vector<T> value = STRIDE == 1 ? sum[o][row] : from_pair_order<T>(sum[o][row]);
        if (edges.narrow) {
          store_first(to, value, width);
        } else {
          store(to, value);
        }
      }
    }
  });
}

/// The planes of one group, and where it goes.
template <typename T>
struct DirectGroup {
  Plane<T> in[kPairPlanes];
  const T* zeros;
  int inputs;
  T* out[kPairPlanes];
  int outputs, out_width;
  const T* out_ahead;  ///< planes that the second-level cache begins to fetch while results are computed; may be null
};

/// What the caches begin to fetch while channel c is read or written: a plane about 16 KB on, which behind the last
/// channel is in the next image. (Behind the last image nothing is there, which a fetch may ask for.)
template <typename T>
inline T* plane_ahead(const Planes<T>& planes, int c, int channels, int pixels) {
  const int ahead = c + larger(2, 16384 / static_cast<int>(sizeof(T)) / pixels);
  if (ahead < channels) return planes.at(ahead);
  return planes.at(smaller(ahead - channels, channels - 1)) + channels * planes.pitch;
}

template <typename T>
inline Plane<T> plane_at(const Planes<const T>& planes, int c, int channels, int height, int width) {
  return {planes.at(c), height, width, plane_ahead(planes, c, channels, height * width)};
}

/// TRANSPOSED: from the output's gradient to the input's. `first_out`: the group's first channel in `out`.
template <typename T>
DirectGroup<T> direct_group(const FusedStage& stage, bool transposed, int group, const Planes<const T>& in,
                            const Planes<T>& out, int first_out, const T* zeros) {
  DirectGroup<T> result;
  result.zeros = zeros;
  result.out_ahead = nullptr;
  result.inputs = transposed ? stage.group_outputs : stage.group_inputs;
  result.outputs = transposed ? stage.group_inputs : stage.group_outputs;
  result.out_width = transposed ? stage.in_width : stage.out_width;
  const int height = transposed ? stage.out_height : stage.in_height;
  const int width = transposed ? stage.out_width : stage.in_width;
  for (int i = 0; i < result.inputs; ++i) {
    result.in[i] = plane_at(in, group * result.inputs + i, stage.group * result.inputs, height, width);
  }
  for (int o = 0; o < result.outputs; ++o) result.out[o] = out.at(first_out + o);
  return result;
}

/// Begins to load rows y .. y + rows - 1 of the plane that will be read next.
template <typename T>
inline void fetch_ahead(const Plane<T>& plane, int y, int rows) {
  fetch_run<true>(plane.ahead + static_cast<ptrdiff_t>(y) * plane.width, rows * plane.width);
}

/// The outputs from output o on, OUTPUTS at a time, then fewer.
template <typename T, int STRIDE, int OUTPUTS>
void direct(const DirectGroup<T>& group, int o, int first_row, int rows, const T* weight, const T* bias) {
  constexpr int kRows = kDirectRows<STRIDE>, kPairs = kDirectRows<1>;
  const int width = group.out_width;
  const bool pairs = in_pairs<T, STRIDE>(group.in->width, width);
  for (; o + OUTPUTS <= group.outputs; o += OUTPUTS) {
    const T* w = weight + static_cast<ptrdiff_t>(9) * o * group.inputs;
    const T* b = bias ? bias + o : nullptr;
    const auto run = rows < kRows ? direct_rows<T, STRIDE, OUTPUTS, 1> : direct_rows<T, STRIDE, OUTPUTS, kRows>;
    const int step = pairs ? 2 * kPairs : rows < kRows ? 1 : kRows;
    for (int row = 0; row < rows; row += step) {
      for (int i = 0; i < group.inputs && o == 0; ++i) {
        fetch_ahead(group.in[i], STRIDE * (first_row + row), STRIDE * step);
      }
      if (group.out_ahead && o == 0) {
        const ptrdiff_t pixels = static_cast<ptrdiff_t>(group.outputs) * width;
        fetch_run<false>(group.out_ahead + row * pixels, step * pixels);
      }
      if (pairs) {
        const auto run_pairs =
            STRIDE == 1 ? direct_pairs<T, OUTPUTS, kPairs> : direct_pairs_stride_2<T, OUTPUTS, kPairs>;
        run_pairs(group.in, group.inputs, first_row + row, rows - row, w, b, group.out + o,
                  static_cast<ptrdiff_t>(row) * width);
        continue;
      }
      const int at = smaller(row, rows - step);  // the last rows may come twice
      run(group.in, group.inputs, group.zeros, first_row + at, w, b, width, group.out + o,
          static_cast<ptrdiff_t>(at) * width);
    }
  }
  if constexpr (OUTPUTS > 1) direct<T, STRIDE, OUTPUTS / 2>(group, o, first_row, rows, weight, bias);
}

/// As depthwise.
template <typename T>
using Depthwise = void (*)(const Plane<T>& in, int first_row, int rows, int width, const T* weight, T bias, T* out,
                           const T* ahead);

/// For `rows` output rows of a stage.
template <typename T, int STRIDE>
Depthwise<T> choose_depthwise(const FusedStage& stage, int rows) {
  constexpr int kSquare = kPairWidth<T>;
  if (!in_pairs<T, STRIDE>(stage.in_width, stage.out_width)) return depthwise<T, STRIDE>;
  if (is_square<T, STRIDE>(stage) && rows == kSquare) {
    return STRIDE == 1 ? depthwise_pairs<T, kSquare> : depthwise_pairs_stride_2<T, kSquare>;
  }
  return STRIDE == 1 ? depthwise_pairs<T, 0> : depthwise_pairs_stride_2<T, 0>;
}

/// Memory that the caches begin to fetch while a stage is computed, `pixels` pixels with each of its groups.
template <typename T>
struct Ahead {
  const T* data;
  ptrdiff_t pixels;
};

/// As spatial_forward; `zeros` is a row of zeros; `ahead` may be empty.
template <typename T, int STRIDE>
void direct_forward(const FusedStage& stage, const Planes<const T>& in, const T* weight, const T* bias, int first_row,
                    int rows, const Planes<T>& out, const Finish<T>& finish, const T* zeros, const Ahead<T>& ahead) {
  const Depthwise<T> run = choose_depthwise<T, STRIDE>(stage, rows);
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(rows) * stage.out_width;
  for (int g = 0; g < stage.group; ++g) {
    fetch_run<false>(ahead.data + g * ahead.pixels, ahead.pixels);
    if (is_depthwise(stage)) {
      run(plane_at(in, g, stage.group, stage.in_height, stage.in_width), first_row, rows, stage.out_width,
          weight + static_cast<ptrdiff_t>(9) * g, bias ? bias[g] : T(0), out.at(g), nullptr);
      continue;
    }
    const int o = g * stage.group_outputs;
    const DirectGroup<T> group = direct_group(stage, false, g, in, out, o, zeros);
    direct<T, STRIDE, kDirectOutputs<STRIDE>>(group, 0, first_row, rows,
                                              weight + static_cast<ptrdiff_t>(9) * o * stage.group_inputs,
                                              bias ? bias + o : nullptr);
  }
  for (int c = 0; c < stage.out_channels && finish.any(); ++c) {
    finish_run<T>(finish, out.at(c), out.at(c), pixels);
  }
}

}  // namespace
}  // namespace caffe_layers
