#pragma once

// 3x3 with stride 1 and a border of one zero on maps half as wide as a vector, which are AVX-512's on the paper's last
// stage: a vector holds two rows. A kernel's row then reads the pair of rows that begins one higher or lower.

#include "caffe_layers/kernels/simd/finish.hpp"
#include "caffe_layers/kernels/simd/weight_sums.hpp"
#include "caffe_layers/kernels/simd/window.hpp"

namespace caffe_layers {
namespace {

template <typename T>
constexpr int kPairWidth = kLanes<T> / 2;

/// Rows y and y + 1, of a plane or its gradient; those outside are zero.
template <typename T>
ALWAYS_INLINE Vector<T> load_pair(const T* plane, int height, int y) {
  const T* from = plane + static_cast<ptrdiff_t>(y) * kPairWidth<T>;
  if (y >= 0 && y + 1 < height) return load(from);
  if (y == height - 1) return load_first(from, kPairWidth<T>);
  return y == -1 ? swap_halves<T>(load_first(plane, kPairWidth<T>)) : Vector<T>{};
}

/// The lane of a pair that the column kx of the kernel meets in lane `lane`; kLanes: none, but a zero.
template <typename T, int KX>
constexpr int shifted_from(int lane) {
  const int column = lane % kPairWidth<T> + KX - 1;
  return column < 0 || column == kPairWidth<T> ? kLanes<T> : lane + KX - 1;
}

/// What the column kx of the kernel meets of a pair: a zero comes in at one end of each row.
template <typename T, int KX>
ALWAYS_INLINE Vector<T> shift_pair(Vector<T> pair) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) from[lane] = shifted_from<T, KX>(lane);
  return __builtin_shuffle(pair, Vector<T>{}, from);
}

/// Goes down a plane, pair after pair: `here` are rows y and y + 1, `above` and `below` the pairs that begin one row
/// higher and lower. Rows outside of the plane are zero.
template <typename T>
class PairWindow {
 public:
  Vector<T> above, here, below;

  ALWAYS_INLINE PairWindow(const T* plane, int height, int y)
      : above(load_pair(plane, height, y - 1)),
        here(load_pair(plane, height, y)),
        plane_(plane),
        height_(height),
        y_(y) {
    look_down();
  }
  ALWAYS_INLINE void advance() {
    y_ += 2;
    above = below;
    here = next_;
    look_down();
  }

 private:
  ALWAYS_INLINE void look_down() {
    next_ = load_pair(plane_, height_, y_ + 2);
    typename VectorOf<T>::Index between = {};
    for (int lane = 0; lane < kLanes<T>; ++lane) between[lane] = lane + kPairWidth<T>;
    below = __builtin_shuffle(here, next_, between);
  }
  Vector<T> next_;
  const T* plane_;
  int height_, y_;
};

/// start + weight (3x3) * what the window shows. The kernel's columns are summed up apart: their sums are shifted,
/// once, not the inputs.
template <typename T>
ALWAYS_INLINE Vector<T> convolve_pair(const PairWindow<T>& in, const Vector<T>* w, Vector<T> start) {
  Vector<T> column[3] = {w[0] * in.above, start + w[1] * in.above, w[2] * in.above};
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx) column[kx] += w[3 + kx] * in.here;
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx) column[kx] += w[6 + kx] * in.below;
  return column[1] + shift_pair<T, 0>(column[0]) + shift_pair<T, 2>(column[2]);
}

/// The first `rows` of a pair.
template <typename T>
ALWAYS_INLINE void store_pair(T* to, Vector<T> pair, int rows) {
  if (rows >= 2) {
    store(to, pair);
  } else {
    store_first(to, pair, kPairWidth<T>);
  }
}

/// As depthwise with stride 1. ROWS: all rows of a map that has so many; 0: any. The compiler then leaves out what
/// decides where the map ends, which is most of the instructions.
template <typename T, int ROWS>
void depthwise_pairs(const Plane<T>& in, int first_row, int rows, int, const T* weight, T bias, T* out,
                     const T* ahead) {
  const int height = ROWS ? ROWS : in.height, first = ROWS ? 0 : first_row, count = ROWS ? ROWS : rows;
  Vector<T> w[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) w[t] = broadcast(weight[t]);
  const Vector<T> start = broadcast(bias);
  PairWindow<T> window(in.data, height, first);
#pragma GCC unroll 4
  for (int row = 0; row < count; row += 2, window.advance()) {
    const int at = row * kPairWidth<T>;
    __builtin_prefetch(in.ahead + first * kPairWidth<T> + at);
    if (ahead) __builtin_prefetch(ahead + at, 1);
    store_pair(out + at, convolve_pair(window, w, start), count - row);
  }
}

/// Stores the first `rows` of 2 PAIRS rows of OUTPUTS planes.
template <typename T, int OUTPUTS, int PAIRS>
ALWAYS_INLINE void store_pairs(const Vector<T> (*sum)[PAIRS], int rows, T* const* out, ptrdiff_t out_at) {
#pragma GCC unroll 4
  for (int o = 0; o < OUTPUTS; ++o) {
#pragma GCC unroll 4
    for (int p = 0; p < PAIRS; ++p) {
      const int left = rows - 2 * p;
      if (left > 0) store_pair(out[o] + out_at + 2 * p * kPairWidth<T>, sum[o][p], left);
    }
  }
}

/// Output rows y .. y + 2 PAIRS - 1, of which `rows` are wanted, of OUTPUTS planes from `inputs` planes; `out` begins
/// at y.
template <typename T, int OUTPUTS, int PAIRS>
inline void direct_pairs(const Plane<T>* in, int inputs, int y, int rows, const T* weight, const T* bias, T* const* out,
                         ptrdiff_t out_at) {
  constexpr int kLines = 2 * PAIRS + 1;
  Vector<T> sum[OUTPUTS][PAIRS];
  start_sums<T, OUTPUTS>(bias, sum);
  for (int i = 0; i < inputs; ++i) {
    Vector<T> line[kLines];
#pragma GCC unroll 9
    for (int l = 0; l < kLines; ++l) line[l] = load_pair(in[i].data, in[i].height, y - 1 + l);
    const auto add_column = [&](int kx) {
#pragma GCC unroll 3
      for (int ky = 0; ky < 3; ++ky) {
#pragma GCC unroll 4
        for (int o = 0; o < OUTPUTS; ++o) {
          const Vector<T> value = broadcast(weight[9 * (o * inputs + i) + 3 * ky + kx]);
#pragma GCC unroll 4
          for (int p = 0; p < PAIRS; ++p) sum[o][p] += value * line[2 * p + ky];
        }
      }
    };
    add_column(1);
    Vector<T> middle[kLines];
#pragma GCC unroll 9
    for (int l = 0; l < kLines; ++l) {
      middle[l] = line[l];
      line[l] = shift_pair<T, 0>(middle[l]);
    }
    add_column(0);
#pragma GCC unroll 9
    for (int l = 0; l < kLines; ++l) line[l] = shift_pair<T, 2>(middle[l]);
    add_column(2);
  }
  store_pairs<T, OUTPUTS, PAIRS>(sum, rows, out, out_at);
}

/// sum += the products of the pair y of the input and the gradients that met it.
template <typename T>
ALWAYS_INLINE void add_products(const Plane<T>& in, int height, int y, const PairWindow<T>& dy, Vector<T>* sum) {
  __builtin_prefetch(in.ahead + y * kPairWidth<T>);
  const Vector<T> middle = load_pair(in.data, height, y);
  const Vector<T> x[3] = {shift_pair<T, 0>(middle), middle, shift_pair<T, 2>(middle)};
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx) {
    sum[kx] += dy.below * x[kx];
    sum[3 + kx] += dy.here * x[kx];
    sum[6 + kx] += dy.above * x[kx];
  }
}

/// As weight_gradient_1.
template <typename T>
void weight_gradient_pairs(const Plane<T>& in, const T* out_diff, Vector<T>* place) {
  Vector<T> sum[9] = {};
  PairWindow<T> dy(out_diff, in.height, 0);
  for (int y = 0; y < in.height; y += 2, dy.advance()) add_products(in, in.height, y, dy, sum);
  put_sums<T>(sum, true, place);
}

/// Both gradients of one channel of a depthwise stage whose output is `height` high: to its weights, as
/// weight_gradient_1, and to its input. Meanwhile the caches begin to fetch as much from `ahead`; null: nothing. ROWS:
/// as for depthwise_pairs.
template <typename T, int ROWS>
void depthwise_pairs_backward(const Plane<T>& in, const T* out_diff, int out_height, const T* weight, Vector<T>* place,
                              T* in_diff, const Finish<T>& finish, const T* ahead) {
  const int height = ROWS ? ROWS : out_height;
  Vector<T> turned[9], sum[9] = {};
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) turned[t] = broadcast(weight[8 - t]);
  PairWindow<T> dy(out_diff, height, 0);
#pragma GCC unroll 4
  for (int y = 0; y < height; y += 2, dy.advance()) {
    T* to = in_diff + y * kPairWidth<T>;
    if (ahead) __builtin_prefetch(ahead + y * kPairWidth<T>, 1);
    add_products(in, height, y, dy, sum);
    const Vector<T> dx = convolve_pair(dy, turned, Vector<T>{});
    if (y + 1 < height) {
      store(to, finished<T, true>(finish, dx, to, 0));
    } else {
      store_first(to, finished<T, false>(finish, dx, to, kPairWidth<T>), kPairWidth<T>);
    }
  }
  put_sums<T>(sum, true, place);
}

}  // namespace
}  // namespace caffe_layers
