#pragma once

#include "caffe_layers/kernels/cuda_launch.cuh"
#include "caffe_layers/kernels/group_convolution_tiles.cuh"

// Where the pieces of tile_pieces.cuh read and write a tile's values: 16 bytes at a time where there are so many.

namespace caffe_layers {

/// An array in shared memory: channel c, pixel p at data[c * pixels + p].
template <typename T>
struct SharedRows {
  T* data;
  int pixels;
};

/// Pixels of all channels of one image in global memory: channel c, pixel p at data[c * plane + p]; pixels from `limit`
/// on do not exist.
template <typename T>
struct PlaneRows {
  T* data;
  int plane, limit;
  /// Rows start at multiples of 16 bytes and limit is a multiple of the vector size.
  bool vectors;
};

/// Rows that are finished before they are stored: pixels of `added` (null: none), which is laid out as they are, are
/// added, then the ReLU is taken, and zero given where `positive` (null: nowhere) is not.
template <typename T>
struct FinishedRows {
  PlaneRows<T> rows;
  const T* added;
  bool relu;
  const T* positive;

  __device__ __forceinline__ FinishedRows(const PlaneRows<T>& rows, const T* added, bool relu, const T* positive)
      : rows(rows), added(added), relu(relu), positive(positive) {
    this->rows.vectors = rows.vectors && is_vector_aligned(added) && is_vector_aligned(positive);
  }
};

/// An array in shared memory, if it is kept there, and a copy of it in global memory; none where saved.data is null.
template <typename T>
struct SavedRows {
  bool keep;
  SharedRows<T> shared;
  PlaneRows<T> saved;
};

/// To read from: an array in shared memory, or where global.data is not null, that.
template <typename T>
struct EitherRows {
  SharedRows<T> shared;
  PlaneRows<const T> global;
};

/// Where a tile lies: its image, and its first pixel in the output map.
struct TilePosition {
  int image, first_pixel;
};
__device__ __forceinline__ TilePosition tile_position(const TilePlan& plan, int tile) {
  return {tile / plan.tiles_per_image, tile % plan.tiles_per_image * plan.pixels};
}

/// A tile of a tensor with `channels` maps of `plane` pixels per image; null stays null.
template <typename T>
__device__ __forceinline__ PlaneRows<T> plane_rows(T* tensor, int channels, int plane, const TilePlan& plan,
                                                   const TilePosition& position) {
  const bool vectors = plane % Vector<T>::size == 0 && is_vector_aligned(tensor);
  const size_t offset = static_cast<size_t>(position.image) * channels * plane + position.first_pixel;
  const int left = plane - position.first_pixel;
  return {tensor ? tensor + offset : nullptr, plane, left < plan.pixels ? left : plan.pixels, vectors};
}

template <typename T>
__device__ __forceinline__ Vector<T> load_pixels(const SharedRows<T>& from, int channel, int pixel) {
  return load_vector(from.data + channel * from.pixels + pixel);
}

/// Zero where there is no pixel.
template <typename T>
__device__ __forceinline__ Vector<T> load_pixels(const PlaneRows<const T>& from, int channel, int pixel) {
  const T* row = from.data + static_cast<size_t>(channel) * from.plane;
  Vector<T> value = {};
  if (from.vectors) {
    if (pixel < from.limit) value = load_vector(row + pixel);
    return value;
  }
#pragma unroll
  for (int e = 0; e < Vector<T>::size; ++e) {
    if (pixel + e < from.limit) value.at[e] = row[pixel + e];
  }
  return value;
}

template <typename T>
__device__ __forceinline__ Vector<T> load_pixels(const EitherRows<T>& from, int channel, int pixel) {
  return from.global.data ? load_pixels(from.global, channel, pixel) : load_pixels(from.shared, channel, pixel);
}

/// Single values; where there is no pixel, shared memory gets what is given and global memory nothing.
template <typename T>
__device__ __forceinline__ void store_pixel(const SharedRows<T>& to, int channel, int pixel, T value) {
  to.data[channel * to.pixels + pixel] = value;
}
template <typename T>
__device__ __forceinline__ void store_pixel(const PlaneRows<T>& to, int channel, int pixel, T value) {
  if (pixel < to.limit) to.data[static_cast<size_t>(channel) * to.plane + pixel] = value;
}
template <typename T>
__device__ __forceinline__ void store_pixel(const FinishedRows<T>& to, int channel, int pixel, T value) {
  if (pixel >= to.rows.limit) return;
  const size_t at = static_cast<size_t>(channel) * to.rows.plane + pixel;
  if (to.added) value += to.added[at];
  const bool zero = (to.relu && value < 0) || (to.positive && !(to.positive[at] > 0));
  to.rows.data[at] = zero ? T(0) : value;
}
template <typename T>
__device__ __forceinline__ void store_pixel(const SavedRows<T>& to, int channel, int pixel, T value) {
  if (to.keep) store_pixel(to.shared, channel, pixel, value);
  if (to.saved.data) store_pixel(to.saved, channel, pixel, value);
}

template <typename Rows, typename T>
__device__ __forceinline__ void store_one_by_one(const Rows& to, int channel, int pixel, const Vector<T>& value) {
#pragma unroll
  for (int e = 0; e < Vector<T>::size; ++e) store_pixel(to, channel, pixel + e, value.at[e]);
}

/// A vector of pixels.
template <typename T>
__device__ __forceinline__ void store_pixels(const SharedRows<T>& to, int channel, int pixel, const Vector<T>& value) {
  store_shared_vector(to.data + channel * to.pixels + pixel, value);
}
template <typename T>
__device__ __forceinline__ void store_pixels(const PlaneRows<T>& to, int channel, int pixel, const Vector<T>& value) {
  if (!to.vectors) {
    store_one_by_one(to, channel, pixel, value);
  } else if (pixel < to.limit) {
    store(to.data + static_cast<size_t>(channel) * to.plane + pixel, value);
  }
}
template <typename T>
__device__ __forceinline__ void store_pixels(const FinishedRows<T>& to, int channel, int pixel, Vector<T> value) {
  if (!to.rows.vectors) return store_one_by_one(to, channel, pixel, value);
  if (pixel >= to.rows.limit) return;
  const size_t at = static_cast<size_t>(channel) * to.rows.plane + pixel;
  Vector<T> added = {}, positive = {};
  if (to.added) added = load_vector(to.added + at);
  if (to.positive) positive = load_vector(to.positive + at);
#pragma unroll
  for (int e = 0; e < Vector<T>::size; ++e) {
    value.at[e] += added.at[e];
    if ((to.relu && value.at[e] < 0) || (to.positive && !(positive.at[e] > 0))) value.at[e] = 0;
  }
  store(to.rows.data + at, value);
}
template <typename T>
__device__ __forceinline__ void store_pixels(const SavedRows<T>& to, int channel, int pixel, const Vector<T>& value) {
  if (to.keep) store_pixels(to.shared, channel, pixel, value);
  if (to.saved.data) store_pixels(to.saved, channel, pixel, value);
}

}  // namespace caffe_layers
