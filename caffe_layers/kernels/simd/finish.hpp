#pragma once

// What happens to a chain's results, and to the bottom's gradient, on their way to memory.

#include "caffe_layers/kernels/simd/vector.hpp"

namespace caffe_layers {
namespace {

/// What is done to results before they are stored: those of the last stage get the residual and the ReLU; the bottom's
/// gradient gets the skip connection's, and is zero where the bottom is not positive.
template <typename T>
struct Finish {
  const T* residual;  ///< laid out as top; may be where the results go; null: none
  const T* top;       ///< null: of another stage
  bool relu;
  bool streamed;    ///< is_streamed(top)
  bool whole;       ///< all of the image: what follows in a plane is not another thread's
  const T* ahead;   ///< what the caches begin to fetch meanwhile, as the results' place in the top goes on; may be null
  int ahead_lines;  ///< for each line of results, at most 2
  const T* mask;    ///< zero where this is not positive; laid out as top; null: nowhere

  const T* residual_at(const T* to) const { return residual + (to - top); }
  const T* mask_at(const T* to) const { return mask + (to - top); }
  bool any() const { return residual || relu || mask; }
};

template <typename T>
inline Vector<T> positive_part(Vector<T> x) {
  return x < Vector<T>{} ? Vector<T>{} : x;
}

/// The result of which y is the first `lanes` lanes, or if WHOLE all.
template <typename T, bool WHOLE>
ALWAYS_INLINE Vector<T> finished(const Finish<T>& finish, Vector<T> y, const T* to, int lanes) {
  const auto at = [=](const T* from) { return WHOLE ? load(from) : load_first(from, lanes); };
  if (finish.residual) y += at(finish.residual_at(to));
  if (finish.relu) y = positive_part<T>(y);
  if (finish.mask) y = at(finish.mask_at(to)) > Vector<T>{} ? y : Vector<T>{};
  return y;
}

/// Does it to `count` results on their way; they may be where they go.
template <typename T>
inline void finish_run(const Finish<T>& finish, const T* from, T* to, ptrdiff_t count) {
  if (from == to && !finish.any()) return;
  const bool streamed = finish.streamed && from != to;
  ptrdiff_t i = 0;
  for (; i + kLanes<T> <= count; i += kLanes<T>) {
    store(to + i, finished<T, true>(finish, load(from + i), to + i, 0), streamed);
  }
  const int left = static_cast<int>(count - i);
  if (left) store_first(to + i, finished<T, false>(finish, load_first(from + i, left), to + i, left), left);
}

}  // namespace
}  // namespace caffe_layers
