#pragma once

// The gradients of the stages of direct.hpp.

#include "caffe_layers/kernels/simd/depthwise_gradient.hpp"
#include "caffe_layers/kernels/simd/small_maps_gradient.hpp"

namespace caffe_layers {
namespace {

/// place[9] = the gradient, with stride 1, of the weights between one input and one output channel.
template <typename T>
OWN_REGISTERS void weight_gradient_1(const Plane<T>& in, const T* out_diff, Vector<T>* place) {
  for_each_vector<T>(in.width, [&](auto edges, int column, int lanes) {
    const auto gradient_row = [&](int y) {
      return load_new(out_diff + static_cast<ptrdiff_t>(y) * in.width + column, lanes, edges);
    };
    Vector<T> above = {}, here = gradient_row(0), sum[9] = {};
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
    put_sums<T>(sum, column == 0, place);
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
OWN_REGISTERS void weight_gradient_2(const Plane<T>& in, const T* out_diff, int height, int width, Vector<T>* place) {
  for_each_vector<T>(width, [&](auto edges, int column, int lanes) {
    Corner<T> dy = Corner<T>::load_from(out_diff, width, column, edges);
    const T* line = in.data;
    Vector<T> sum[9] = {};
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
    put_sums<T>(sum, column == 0, place);
  });
}

/// The input rows that belong to output rows y .. y + ROWS - 1 of a stage with stride 2, from the gradients of
/// `outputs` planes; their weights are `weight_stride` apart.
template <typename T, int ROWS>
inline void transposed_rows(const Plane<T>* out_diff, int outputs, const T* zeros, int y, const T* weight,
                            int weight_stride, int height, int width, T* in_diff, bool streamed) {
  for_each_vector<T>(out_diff->width, [&](auto edges, int column, int) {
    Vector<T> sum[ROWS][4] = {};  // even and odd pixels of the even row, then of the odd row
    const T* weight_of_output = weight;
    for (int o = 0; o < outputs; ++o, weight_of_output += weight_stride) {
      const T* w = weight_of_output;
      const BorderedRows<T, ROWS + 1> lines(out_diff[o], y, zeros);
      Corner<T> dy[ROWS + 1];
#pragma GCC unroll 3
      for (int l = 0; l < ROWS + 1; ++l) {
        dy[l] = Corner<T>::load_from(lines.at(l), out_diff->width, column, edges);
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
      if (2 * y + r < height) store_interleaved(to, value[0], value[1], pixels, streamed);
    }
  });
}

/// Stride 2, from the gradients of `outputs` planes back to one input of height x width. Meanwhile the second-level
/// cache begins to fetch as much from `ahead`; null: nothing.
template <typename T>
void direct_transposed(const Plane<T>* out_diff, int outputs, const T* zeros, const T* weight, int weight_stride,
                       int height, int width, T* in_diff, const T* ahead, bool streamed) {
  const int rows = out_diff->height;
  if (in_pairs<T, 2>(width, out_diff->width)) {
    return transposed_pairs<T>(out_diff, outputs, weight, weight_stride, height, in_diff, ahead, streamed);
  }
  if (rows == 1) {
    return transposed_rows<T, 1>(out_diff, outputs, zeros, 0, weight, weight_stride, height, width, in_diff, streamed);
  }
  for (int row = 0; row < rows; row += 2) {
    if (ahead) fetch_run<false>(ahead + static_cast<ptrdiff_t>(2) * row * width, 4 * width);
    transposed_rows<T, 2>(out_diff, outputs, zeros, smaller(row, rows - 2), weight, weight_stride, height, width,
                          in_diff, streamed);
  }
}

/// The gradients of one image to the weights of one group.
template <typename T>
void direct_weight_gradient(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                            int group, WeightSums<T>* sums) {
  const int height = stage.out_height, width = stage.out_width;
  for (int o = group * stage.group_outputs; o < (group + 1) * stage.group_outputs; ++o) {
    const T* dy = out_diff.at(o);
    for (int i = group * stage.group_inputs; i < (group + 1) * stage.group_inputs; ++i) {
      const Plane<T> x = {in.at(i), stage.in_height, stage.in_width, in.at(smaller(i + 1, stage.in_channels - 1))};
      Vector<T>* place = sums->next(9);
      if (stage.stride == 1 && in_pairs<T, 1>(x.width, width)) {
        weight_gradient_pairs(x, dy, place);
      } else if (stage.stride == 1) {
        weight_gradient_1(x, dy, place);
      } else if (in_pairs<T, 2>(x.width, width)) {
        weight_gradient_pairs_stride_2(x, dy, height, place);
      } else {
        weight_gradient_2(x, dy, height, width, place);
      }
    }
  }
}

/// in_diff, from its channel `first` on, = the gradient to the input of one image, one group. `weight` and `transposed`
/// are those of all groups; `ahead`: a plane that the caches begin to fetch, may be null.
template <typename T>
void direct_input_gradient(const FusedStage& stage, const Planes<const T>& out_diff, int group, const T* weight,
                           const T* transposed, const Planes<T>& in_diff, int first, const T* ahead, bool streamed,
                           const T* zeros) {
  const int inputs = stage.group_inputs, outputs = stage.group_outputs;
  const ptrdiff_t weights = static_cast<ptrdiff_t>(9) * group * inputs * outputs;
  if (stage.stride == 1 && is_depthwise(stage)) {
    const int height = stage.in_height, width = stage.in_width;  // the output's too
    const Depthwise<T> run = choose_depthwise<T, 1>(stage, height);
    return run(plane_at(out_diff, group, stage.group, height, width), 0, height, width, transposed + weights, T(0),
               in_diff.at(first), ahead);
  }
  DirectGroup<T> planes = direct_group(stage, true, group, out_diff, in_diff, first, zeros);
  if (stage.stride == 1) {
    planes.out_ahead = ahead;
    return direct<T, 1, kDirectOutputs<1>>(planes, 0, 0, stage.in_height, transposed + weights, nullptr);
  }
  for (int i = 0; i < inputs; ++i) {
    direct_transposed(planes.in, outputs, zeros, weight + weights + 9 * i, 9 * inputs, stage.in_height, stage.in_width,
                      planes.out[i], i == 0 ? ahead : nullptr, streamed);
  }
}

/// weight_diff += (if is_small_3x3 in another order, until outputs_first) and in_diff = the gradients of one image;
/// either may be null. `transposed`: from transpose_weight_rows. What is added to in_diff may lie there, and some
/// pixels are computed twice: such results go by way of `planes`, for one group.
template <typename T>
void direct_backward(const FusedStage& stage, const Planes<const T>& in, const Planes<const T>& out_diff,
                     const T* weight, const T* transposed, T* weight_diff, const Planes<T>& in_diff,
                     const Finish<T>& finish, const Planes<T>& planes, const T* zeros) {
  WeightSums<T> sums(weight_diff);
  const DepthwiseBackward<T> together = is_depthwise(stage) ? choose_depthwise_backward(stage, finish) : nullptr;
  if (together && weight_diff && in_diff.data) {
    return depthwise_gradients(stage, together, in, out_diff, weight, in_diff, finish, &sums);
  }
  const int inputs = stage.group_inputs, pixels = stage.in_height * stage.in_width;
  const bool small = is_small_3x3<T>(stage);
  if (weight_diff && small) small_weight_gradient(stage, in, out_diff, weight_diff);
  for (int g = 0; g < stage.group; ++g) {
    if (weight_diff && !small) direct_weight_gradient(stage, in, out_diff, g, &sums);
    if (!in_diff.data) continue;
    const int first = g * inputs;
    const T* ahead = plane_ahead(in_diff, first, stage.in_channels, pixels);
    if (!finish.any()) {
      const bool fetched = stage.stride == 1 && is_depthwise(stage);
      direct_input_gradient<T>(stage, out_diff, g, weight, transposed, in_diff, first, fetched ? ahead : nullptr,
                               finish.streamed, zeros);
      continue;
    }
    direct_input_gradient<T>(stage, out_diff, g, weight, transposed, planes, 0,
                             finish.residual ? finish.residual_at(ahead) : ahead, false, zeros);
    for (int i = 0; i < inputs; ++i) finish_run<T>(finish, planes.at(i), in_diff.at(first + i), pixels);
  }
}

}  // namespace
}  // namespace caffe_layers
