#pragma once

// As row_pairs.hpp with stride 2: two output rows in a vector, from input rows that are a whole vector each. What a
// kernel's row meets are the even and the odd pixels of two input rows, two apart: in pair order (lanes.hpp), but for
// direct_pairs_stride_2.

#include "caffe_layers/kernels/simd/fetch.hpp"
#include "caffe_layers/kernels/simd/row_pairs.hpp"

namespace caffe_layers {
namespace {

/// Row y of a plane; those outside are zero.
template <typename T>
ALWAYS_INLINE Vector<T> load_line(const Plane<T>& plane, int y) {
  return y < 0 || y >= plane.height ? Vector<T>{} : load(plane.data + static_cast<ptrdiff_t>(y) * kLanes<T>);
}

/// shift_pair of a vector in pair order; the result is not.
template <typename T, int KX>
ALWAYS_INLINE Vector<T> shift_from_pair_order(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const int source = shifted_from<T, KX>(lane);
    from[lane] = source == kLanes<T> ? source : pair_lane<T>(source);
  }
  return __builtin_shuffle(x, Vector<T>{}, from);
}
/// shift_pair into pair order.
template <typename T, int KX>
ALWAYS_INLINE Vector<T> shift_to_pair_order(Vector<T> x) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[pair_lane<T>(lane)] = shifted_from<T, KX>(lane);
  return __builtin_shuffle(x, Vector<T>{}, from);
}

/// Goes down a plane, two output rows at a time: the first reads lines 0 to 2, the second lines 2 to 4.
template <typename T>
class LineWindow {
 public:
  /// In front of output row `row`.
  ALWAYS_INLINE LineWindow(const Plane<T>& plane, int row) : plane_(plane), y_(2 * row - 1) {
    line_[4] = load_line(plane, y_);
  }
  ALWAYS_INLINE void advance() {
    line_[0] = line_[4];
#pragma GCC unroll 4
    for (int l = 1; l < 5; ++l) {
      line_[l] = load_line(plane_, y_ + l);
      __builtin_prefetch(plane_.ahead + (y_ + l) * kLanes<T>, 0, 2);
    }
    y_ += 4;
  }
  /// What the middle and the right column of the kernel's row ky meet.
  ALWAYS_INLINE Vector<T> even(int ky) const { return every_second<T, 0>(line_[ky], line_[ky + 2]); }
  ALWAYS_INLINE Vector<T> odd(int ky) const { return every_second<T, 1>(line_[ky], line_[ky + 2]); }

 private:
  Vector<T> line_[5];
  const Plane<T>& plane_;
  int y_;
};

/// A plane of which the compiler knows that it has twice ROWS rows; 0: it does not.
template <int ROWS, typename T>
ALWAYS_INLINE Plane<T> with_rows(Plane<T> plane) {
  if (ROWS) plane.height = 2 * ROWS;
  return plane;
}

/// As depthwise with stride 2. The sum of the kernel's left column is shifted, not its inputs. ROWS: as for
/// depthwise_pairs, of the output; the input has twice as many.
template <typename T, int ROWS>
void depthwise_pairs_stride_2(const Plane<T>& in, int first_row, int rows, int, const T* weight, T bias, T* out,
                              const T* ahead) {
  const Plane<T> plane = with_rows<ROWS>(in);
  const int count = ROWS ? ROWS : rows;
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) w[t] = broadcast(weight[t]);
  LineWindow<T> x(plane, ROWS ? 0 : first_row);
#pragma GCC unroll 4
  for (int row = 0; row < count; row += 2) {
    const int at = row * kPairWidth<T>;
    x.advance();
    if (ahead) __builtin_prefetch(ahead + at, 1);
    Vector<T> left = {}, middle = broadcast(bias), right = {};
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      const Vector<T> odd = x.odd(ky);
      left += w[3 * ky] * odd;
      middle += w[3 * ky + 1] * x.even(ky);
      right += w[3 * ky + 2] * odd;
    }
    const Vector<T> sum = from_pair_order<T>(middle + right) + shift_from_pair_order<T, 0>(left);
    store_pair(out + at, sum, count - row);
  }
}

/// As direct_pairs.
template <typename T, int OUTPUTS, int PAIRS>
inline void direct_pairs_stride_2(const Plane<T>* in, int inputs, int y, int rows, const T* weight, const T* bias,
                                  T* const* out, ptrdiff_t out_at) {
  Vector<T> sum[OUTPUTS][PAIRS];
  start_sums<T, OUTPUTS>(bias, sum);
  for (int i = 0; i < inputs; ++i) {
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      Vector<T> x[3][PAIRS];
#pragma GCC unroll 4
      for (int p = 0; p < PAIRS; ++p) {
        const int upper = 2 * (y + 2 * p) + ky - 1;
        const Vector<T> a = load_line(in[i], upper), b = load_line(in[i], upper + 2);
        x[1][p] = even_pixels<T>(a, b);
        x[2][p] = odd_pixels<T>(a, b);
        x[0][p] = shift_pair<T, 0>(x[2][p]);
      }
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
#pragma GCC unroll 4
        for (int o = 0; o < OUTPUTS; ++o) {
          const Vector<T> value = broadcast(weight[9 * (o * inputs + i) + 3 * ky + kx]);
#pragma GCC unroll 4
          for (int p = 0; p < PAIRS; ++p) sum[o][p] += value * x[kx][p];
        }
      }
    }
  }
  store_pairs<T, OUTPUTS, PAIRS>(sum, rows, out, out_at);
}

/// The gradients of a pair of output rows, and of those to the right and below.
template <typename T>
struct PairCorner {
  Vector<T> here, right, below, right_below;

  ALWAYS_INLINE PairCorner(const T* out_diff, int height, int y)
      : PairCorner(load_pair(out_diff, height, y), load_pair(out_diff, height, y + 1)) {}
  ALWAYS_INLINE PairCorner(Vector<T> pair, Vector<T> pair_below)
      : here(to_pair_order<T>(pair)),
        right(shift_to_pair_order<T, 2>(pair)),
        below(to_pair_order<T>(pair_below)),
        right_below(shift_to_pair_order<T, 2>(pair_below)) {}

  /// sum[9] += the pair's share of the gradients of the weights.
  ALWAYS_INLINE void add_products(const LineWindow<T>& x, Vector<T>* sum) const {
#pragma GCC unroll 3
    for (int ky = 0; ky < 3; ++ky) {
      const Vector<T> odd = x.odd(ky);
      sum[3 * ky] += right * odd;
      sum[3 * ky + 1] += here * x.even(ky);
      sum[3 * ky + 2] += here * odd;
    }
  }
  /// sum[4] += that of the input's: the even and odd pixels of even rows, then of odd rows.
  ALWAYS_INLINE void add_input(const T* w, Vector<T>* sum) const {
    sum[0] += broadcast(w[4]) * here;
    sum[1] += broadcast(w[5]) * here;
    sum[2] += broadcast(w[7]) * here;
    sum[3] += broadcast(w[8]) * here;
    sum[1] += broadcast(w[3]) * right;
    sum[2] += broadcast(w[1]) * below;
    sum[3] += broadcast(w[6]) * right;
    sum[3] += broadcast(w[2]) * below;
    sum[3] += broadcast(w[0]) * right_below;
  }
};

/// Rows y .. y + 3 of an input plane `height` high from the sums of add_input. FINISHES: whether finish.any().
template <typename T, bool FINISHES>
ALWAYS_INLINE void store_lines(const Vector<T>* sum, int y, int height, T* in_diff, const Finish<T>& finish) {
  T* to = in_diff + static_cast<ptrdiff_t>(y) * kLanes<T>;
#pragma GCC unroll 4
  for (int row = 0; row < 4; ++row, to += kLanes<T>) {
    if (y + row >= height) return;
    const Vector<T> even = sum[row % 2 * 2], odd = sum[row % 2 * 2 + 1];
    const Vector<T> line = row < 2 ? interleave<T, 0>(even, odd) : interleave<T, 1>(even, odd);
    store(to, FINISHES ? finished<T, true>(finish, line, to, 0) : line, finish.streamed);
  }
}

/// As weight_gradient_2.
template <typename T>
void weight_gradient_pairs_stride_2(const Plane<T>& in, const T* out_diff, int height, Vector<T>* place) {
  Vector<T> sum[9] = {};
  LineWindow<T> x(in, 0);
  for (int y = 0; y < height; y += 2) {
    x.advance();
    PairCorner<T>(out_diff, height, y).add_products(x, sum);
  }
  put_sums<T>(sum, true, place);
}

/// As direct_transposed: the gradients of two rows of outputs and those below go to four rows of the input.
template <typename T>
void transposed_pairs(const Plane<T>* out_diff, int outputs, const T* weight, int weight_stride, int height, T* in_diff,
                      const T* ahead, bool streamed) {
  Finish<T> finish = {};
  finish.streamed = streamed;
  for (int y = 0; y < out_diff->height; y += 2) {
    if (ahead) fetch_run<false>(ahead + static_cast<ptrdiff_t>(2 * y) * kLanes<T>, 4 * kLanes<T>);
    Vector<T> sum[4] = {};
    for (int o = 0; o < outputs; ++o) {
      PairCorner<T>(out_diff[o].data, out_diff->height, y).add_input(weight + o * weight_stride, sum);
    }
    store_lines<T, false>(sum, 2 * y, height, in_diff, finish);
  }
}

/// As depthwise_pairs_backward.
template <typename T, int ROWS, bool FINISHES>
void depthwise_pairs_backward_stride_2(const Plane<T>& in, const T* out_diff, int out_height, const T* weight,
                                       Vector<T>* place, T* in_diff, const Finish<T>& finish, const T* ahead) {
  const Plane<T> plane = with_rows<ROWS>(in);
  const int height = ROWS ? ROWS : out_height;
  Vector<T> sum[9] = {};
  LineWindow<T> x(plane, 0);
#pragma GCC unroll 4
  for (int y = 0; y < height; y += 2) {
    if (ahead) fetch_run<false>(ahead + static_cast<ptrdiff_t>(2 * y) * kLanes<T>, 4 * kLanes<T>);
    x.advance();
    const PairCorner<T> dy(out_diff, height, y);
    dy.add_products(x, sum);
    Vector<T> dx[4] = {};
    dy.add_input(weight, dx);
    store_lines<T, FINISHES>(dx, 2 * y, plane.height, in_diff, finish);
  }
  put_sums<T>(sum, true, place);
}

}  // namespace
}  // namespace caffe_layers
