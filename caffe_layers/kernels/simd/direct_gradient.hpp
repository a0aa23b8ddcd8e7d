#pragma once

// The gradients of the stages of direct.hpp.

#include "caffe_layers/kernels/simd/direct.hpp"

namespace caffe_layers {
namespace {

/// load(from), but zero in the first n lanes.
template <typename T>
ALWAYS_INLINE Vector<T> load_without_first(const T* from, int n) {
  return n <= 0 ? load(from) : load(from) - load_first(from, smaller(n, kLanes<T>));
}

/// Collects the lanes' sums of weight gradients, which come in the order of the weights: reduced many at once, they
/// cost least.
template <typename T>
class WeightSums {
 public:
  explicit WeightSums(T* weight_diff) : to_(weight_diff) {}
  ~WeightSums() { flush(); }
  /// weight_diff[0 .. COUNT - 1] += the sums over the lanes of `sum`; the next call goes on behind.
  template <int COUNT>
  void add(const Vector<T>* sum) {
    if (count_ + COUNT > kMost) flush();
#pragma GCC unroll 9
    for (int i = 0; i < COUNT; ++i) sum_[count_ + i] = sum[i];
    count_ += COUNT;
  }

 private:
  static constexpr int kMost = 72;  // whole vectors of sums, if there are many
  void flush() {
    for (int first = 0; first < count_; first += kLanes<T>, to_ += kLanes<T>) {
      const int left = smaller(count_ - first, kLanes<T>);
      for (int i = left; i < kLanes<T>; ++i) sum_[first + i] = Vector<T>{};
      store_first(to_, load_first(to_, left) + reduce<T>(sum_ + first), left);
    }
    to_ += count_ % kLanes<T> ? count_ % kLanes<T> - kLanes<T> : 0;
    count_ = 0;
  }
  T* to_;
  int count_ = 0;
  Vector<T> sum_[kMost + kLanes<T>];
};

/// sum[9] += the gradient, with stride 1, of the weights between one input and one output channel.
template <typename T>
void weight_gradient_1(const Plane<T>& in, const T* out_diff, Vector<T>* sum) {
  for_each_vector<T>(in.width, [&](auto edges, int column, int lanes) {
    const auto gradient_row = [&](int y) {
      const T* from = out_diff + static_cast<ptrdiff_t>(y) * in.width + column;
      return edges.narrow  ? load_first(from, lanes)
             : edges.right ? load_without_first(from, kLanes<T> - lanes)
                           : load(from);
    };
    Vector<T> above = {}, here = gradient_row(0);
    for (int y = 0; y < in.height; ++y) {
      const Vector<T> below = y + 1 < in.height ? gradient_row(y + 1) : Vector<T>{};
      const Taps<T, 1, decltype(edges)> row(in, y, column, edges);
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        sum[kx] += below * row.x[kx];
        sum[3 + kx] += here * row.x[kx];
        sum[6 + kx] += above * row.x[kx];
      }
      above = here;
      here = below;
    }
  });
}

/// With stride 2 an output pixel (y, x) met the input pixels around (2y, 2x): of these, even rows (columns) met one row
/// (column) of the kernel, odd ones two. So an input pixel (2y + 1, 2x + 1) got something from the outputs here, right,
/// below, and right below. In pair order.
template <typename T>
struct Corner {
  Vector<T> here, right;
  /// From column `column` of a row of the output's gradient, `width` wide.
  template <typename Edges>
  ALWAYS_INLINE static Corner load_from(const T* line, int width, int column, Edges edges) {
    const T* from = line + column;
    const int lanes = edges.narrow ? width : kLanes<T>;
    return {to_pair_order<T>(edges.narrow ? load_first(from, lanes) : load(from)),
            to_pair_order<T>(edges.right ? load_first(from + 1, lanes - 1) : load(from + 1))};
  }
};

/// Even and odd pixels from 2 * column on of a row `width` wide, in pair order; `lanes` as in for_each_vector.
template <typename T, typename Edges>
ALWAYS_INLINE void load_even_odd(const T* line, int width, int column, int lanes, Edges edges, Vector<T>* even,
                                 Vector<T>* odd) {
  const T* from = line + 2 * column;
  const int pixels = width - 2 * column;
  Vector<T> first = edges.narrow ? load_first(from, smaller(pixels, kLanes<T>)) : load(from);
  Vector<T> second = !edges.right         ? load(from + kLanes<T>)
                     : pixels > kLanes<T> ? load_first(from + kLanes<T>, pixels - kLanes<T>)
                                          : Vector<T>{};
  if (edges.right && !edges.narrow && lanes < kLanes<T>) {
    const int old = 2 * (kLanes<T> - lanes);
    first = first - load_first(from, smaller(old, kLanes<T>));
    if (old > kLanes<T>) second = second - load_first(from + kLanes<T>, old - kLanes<T>);
  }
  *even = every_second<T, 0>(first, second);
  *odd = every_second<T, 1>(first, second);
}

/// The same with stride 2.
template <typename T>
void weight_gradient_2(const Plane<T>& in, const T* out_diff, int height, int width, Vector<T>* sum) {
  for_each_vector<T>(width, [&](auto edges, int column, int lanes) {
    Corner<T> dy = Corner<T>::load_from(out_diff, width, column, edges);
    const T* line = in.data;
    for (int y = 0; y < height; ++y, line += 2 * in.width) {
      const T* next = out_diff + static_cast<ptrdiff_t>(y + 1) * width;
      const Corner<T> below = y + 1 < height ? Corner<T>::load_from(next, width, column, edges) : Corner<T>{};
      Vector<T> even, odd;
      load_even_odd(line, in.width, column, lanes, edges, &even, &odd);
      sum[4] += dy.here * even;
      sum[5] += dy.here * odd;
      sum[3] += dy.right * odd;
      if (2 * y + 1 < in.height) {
        load_even_odd(line + in.width, in.width, column, lanes, edges, &even, &odd);
        sum[7] += dy.here * even;
        sum[1] += below.here * even;
        sum[8] += dy.here * odd;
        sum[6] += dy.right * odd;
        sum[2] += below.here * odd;
        sum[0] += below.right * odd;
      }
      dy = below;
    }
  });
}

/// The input rows that belong to output rows y .. y + ROWS - 1 of a stage with stride 2, from the gradients of
/// `outputs` planes; their weights are `weight_stride` apart.
template <typename T, int ROWS>
inline void transposed_rows(const Plane<T>* out_diff, int outputs, const T* zeros, int y, const T* weight,
                            int weight_stride, int height, int width, T* in_diff) {
  const T* line[kDirectPlanes][ROWS + 1];
  for (int o = 0; o < outputs; ++o) {
#pragma GCC unroll 3
    for (int l = 0; l < ROWS + 1; ++l) line[o][l] = row_or_zeros(out_diff[o], y + l, zeros);
  }
  for_each_vector<T>(out_diff->width, [&](auto edges, int column, int) {
    Vector<T> sum[ROWS][4] = {};  // even and odd pixels of the even row, then of the odd row
    const T* weight_of_output = weight;
    for (int o = 0; o < outputs; ++o, weight_of_output += weight_stride) {
      const T* w = weight_of_output;
      Corner<T> dy[ROWS + 1];
#pragma GCC unroll 3
      for (int l = 0; l < ROWS + 1; ++l) {
        dy[l] = Corner<T>::load_from(line[o][l], out_diff->width, column, edges);
      }
#pragma GCC unroll 2
      for (int row = 0; row < ROWS; ++row) {
        sum[row][0] += broadcast(w[4]) * dy[row].here;
        sum[row][1] += broadcast(w[5]) * dy[row].here;
        sum[row][2] += broadcast(w[7]) * dy[row].here;
        sum[row][3] += broadcast(w[8]) * dy[row].here;
        sum[row][1] += broadcast(w[3]) * dy[row].right;
        sum[row][3] += broadcast(w[6]) * dy[row].right;
        sum[row][2] += broadcast(w[1]) * dy[row + 1].here;
        sum[row][3] += broadcast(w[2]) * dy[row + 1].here;
        sum[row][3] += broadcast(w[0]) * dy[row + 1].right;
      }
    }
    const int pixels = edges.right ? width - 2 * column : 2 * kLanes<T>;
#pragma GCC unroll 4
    for (int r = 0; r < 2 * ROWS; ++r) {
      T* to = in_diff + static_cast<ptrdiff_t>(2 * y + r) * width + 2 * column;
      const Vector<T>* value = sum[r / 2] + r % 2 * 2;
      if (2 * y + r < height) store_interleaved(to, value[0], value[1], pixels);
    }
  });
}

/// Stride 2, from the gradients of `outputs` planes back to one input of height x width.
template <typename T>
void direct_transposed(const Plane<T>* out_diff, int outputs, const T* zeros, const T* weight, int weight_stride,
                       int height, int width, T* in_diff) {
  const int rows = out_diff->height;
  if (rows == 1) {
    return transposed_rows<T, 1>(out_diff, outputs, zeros, 0, weight, weight_stride, height, width, in_diff);
  }
  for (int row = 0; row < rows; row += 2) {
    transposed_rows<T, 2>(out_diff, outputs, zeros, smaller(row, rows - 2), weight, weight_stride, height, width,
                          in_diff);
  }
}

/// weight_diff += the gradient of one image.
template <typename T>
void direct_weight_gradient(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                            int group, WeightSums<T>* sums) {
  for (int o = group * stage.group_outputs; o < (group + 1) * stage.group_outputs; ++o) {
    for (int i = group * stage.group_inputs; i < (group + 1) * stage.group_inputs; ++i) {
      const Plane<T> x = {in.at(i), stage.in_height, stage.in_width, in.at(smaller(i + 1, stage.in_channels - 1))};
      Vector<T> sum[9] = {};
      if (stage.stride == 1 && stage.in_width == kPairWidth<T>) {
        weight_gradient_pairs(x, out_diff.at(o), sum);
      } else if (stage.stride == 1) {
        weight_gradient_1(x, out_diff.at(o), sum);
      } else {
        weight_gradient_2(x, out_diff.at(o), stage.out_height, stage.out_width, sum);
      }
      sums->template add<9>(sum);
    }
  }
}

/// For the way from the output's gradient to the input's with stride 1: inputs are outputs, and the kernel is turned by
/// 180 degrees.
template <typename T>
void transpose_direct_weights(const FusedStage& stage, const T* weight, T* transposed) {
  const int turned[9] = {8, 7, 6, 5, 4, 3, 2, 1, 0}, inputs = stage.group_inputs, outputs = stage.group_outputs;
  for (int group = 0; group < stage.group; ++group) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(9) * group * inputs * outputs;
    gather_weights(weight + at, inputs, 9, outputs, 9 * inputs, turned, 9, transposed + at);
  }
}

/// in_diff = the gradient to the input of one image, one group, whose weights are given, also transposed.
template <typename T>
void direct_input_gradient(const FusedStage& stage, const Planes<const T>& out_diff, int group, const T* weight,
                           const T* transposed, const Planes<T>& in_diff, const T* zeros) {
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const DirectGroup<T> planes = direct_group(stage, true, group, out_diff, in_diff, zeros);
  if (stage.stride == 1) return run_group<T, 1>(planes, 0, stage.in_height, transposed, nullptr);
  for (int i = 0; i < inputs; ++i) {
    direct_transposed(planes.in, outputs, zeros, weight + 9 * i, 9 * inputs, stage.in_height, stage.in_width,
                      planes.out[i]);
  }
}

/// weight_diff += and in_diff = the gradients of one image; either may be null. `transposed`: from
/// transpose_direct_weights.
template <typename T>
void direct_backward(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                     const T* weight, const T* transposed, T* weight_diff, const Planes<T>& in_diff, const T* zeros) {
  WeightSums<T> sums(weight_diff);
  for (int g = 0; g < stage.group; ++g) {
    const ptrdiff_t weights = static_cast<ptrdiff_t>(9) * g * stage.group_inputs * stage.group_outputs;
    if (weight_diff) direct_weight_gradient(stage, in, out_diff, g, &sums);
    if (in_diff.data) direct_input_gradient(stage, out_diff, g, weight + weights, transposed + weights, in_diff, zeros);
  }
}

}  // namespace
}  // namespace caffe_layers
