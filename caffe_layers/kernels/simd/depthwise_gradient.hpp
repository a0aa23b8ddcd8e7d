#pragma once

// Both gradients of a depthwise stage (depthwise.hpp, row_pairs.hpp) in one pass over a plane: what the output's
// gradient shows to the columns of the kernel is loaded and shifted once for both.

#include "caffe_layers/kernels/simd/direct.hpp"

namespace caffe_layers {
namespace {

/// A vector of a row where for_each_vector says: only its new pixels, zero in the other lanes.
template <typename T, typename Edges>
ALWAYS_INLINE Vector<T> load_new(const T* from, int lanes, Edges edges) {
  if (edges.narrow) return load_first(from, lanes);
  const bool some_old = edges.right && lanes < kLanes<T>;
  return some_old ? load(from) - load_first(from, kLanes<T> - lanes) : load(from);
}

/// As depthwise_pairs_backward with stride 1, on maps of any width; `finish` not where pixels are computed twice.
template <typename T>
void depthwise_backward(const Plane<T>& in, const T* out_diff, int height, const T* weight, Vector<T>* place,
                        T* in_diff, const Finish<T>& finish, const T* ahead) {
  Vector<T> turned[9];
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) turned[t] = broadcast(weight[8 - t]);
  const Plane<T> gradient = {out_diff, height, in.width, out_diff};
  for_each_vector<T>(in.width, [&](auto edges, int column, int lanes) {
    const auto input_row = [&](int y) {
      const T* from = in.data + static_cast<ptrdiff_t>(y) * in.width + column;
      __builtin_prefetch(in.ahead + (from - in.data), 0, 2);
      return load_new(from, lanes, edges);
    };
    const auto finish_row = [&](T* to, Vector<T> dx) {
      if (ahead) __builtin_prefetch(ahead + (to - in_diff), 0, 2);
      if (edges.narrow) {
        store_first(to, finished<T, false>(finish, dx, to, lanes), lanes);
      } else {
        store(to, finished<T, true>(finish, dx, to, 0), finish.streamed);
      }
    };
    Vector<T> above = {}, here = input_row(0), dx = {}, next = {}, sum[9] = {};
    T* to = in_diff + column;
    for (int y = 0; y < height; ++y, to += in.width) {
      const Vector<T> below = y + 1 < height ? input_row(y + 1) : Vector<T>{};
      const Taps<T, 1, decltype(edges)> dy(gradient, y, column, edges);
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        sum[2 - kx] += above * dy.x[kx];
        sum[5 - kx] += here * dy.x[kx];
        sum[8 - kx] += below * dy.x[kx];
      }
      if (y > 0) finish_row(to - in.width, dy.add(dx, turned, 2));
      dx = dy.add(next, turned, 1);
      next = dy.add(Vector<T>{}, turned, 0);
      above = here;
      here = below;
    }
    finish_row(to - in.width, dx);
    put_sums<T>(sum, column == 0, place);
  });
}

/// One of the kernels above.
template <typename T>
using DepthwiseBackward = void (*)(const Plane<T>& in, const T* out_diff, int height, const T* weight, Vector<T>* place,
                                   T* in_diff, const Finish<T>& finish, const T* ahead);

/// That for a depthwise stage; null where there is none, or 16 registers would not hold the sums.
template <typename T>
DepthwiseBackward<T> choose_depthwise_backward(const FusedStage& stage, const Finish<T>& finish) {
  const int width = stage.in_width;
  constexpr int kSquare = kPairWidth<T>;
  if (stage.stride == 1 && in_pairs<T, 1>(width, stage.out_width)) {
    return is_square<T, 1>(stage) ? depthwise_pairs_backward<T, kSquare> : depthwise_pairs_backward<T, 0>;
  }
  if (stage.stride == 2 && in_pairs<T, 2>(width, stage.out_width)) {
    if (!is_square<T, 2>(stage)) return depthwise_pairs_backward_stride_2<T, 0, true>;
    return finish.any() ? depthwise_pairs_backward_stride_2<T, kSquare, true>
                        : depthwise_pairs_backward_stride_2<T, kSquare, false>;
  }
  const bool twice = width > kLanes<T> && width % kLanes<T> != 0;
  return stage.stride == 1 && kVectorBytes == 64 && !(twice && finish.any()) ? depthwise_backward<T> : nullptr;
}

/// weight_diff's sums, and in_diff, of one image. With stride 1 and nothing to finish, in_diff is not streamed: batch
/// norm reads it next and finds some of it in the third-level cache (1.36 instead of 1.55 ms at 64x64x32x32).
template <typename T>
void depthwise_gradients(const FusedStage& stage, DepthwiseBackward<T> run, const Planes<const T>& in,
                         const Planes<const T>& out_diff, const T* weight, const Planes<T>& in_diff, Finish<T> finish,
                         WeightSums<T>* sums) {
  finish.streamed = finish.streamed && (finish.any() || stage.stride > 1);
  for (int c = 0; c < stage.group; ++c) {
    const Plane<T> x = {in.at(c), stage.in_height, stage.in_width, in.at(smaller(c + 1, stage.group - 1))};
    const T* ahead = plane_ahead(in_diff, c, stage.group, stage.in_height * stage.in_width);
    if (finish.residual) ahead = finish.residual_at(ahead);
    run(x, out_diff.at(c), stage.out_height, weight + static_cast<ptrdiff_t>(9) * c, sums->next(9), in_diff.at(c),
        finish, finish.streamed && !finish.residual ? nullptr : ahead);
  }
}

}  // namespace
}  // namespace caffe_layers
