#pragma once

// As winograd_tiles.hpp, where a vector of tiles is some whole rows of tiles: a block, whose lines stay in registers.
// That is so on maps whose width is a power of two, from half a vector to four.

#include "caffe_layers/kernels/simd/lanes.hpp"
#include "caffe_layers/kernels/simd/winograd_tiles.hpp"

namespace caffe_layers {
namespace {

template <typename T>
inline bool has_blocks(const TileMap& map) {
  return kLanes<T> >= 4 && map.width == kTileOutputs * map.columns && kLanes<T> % map.columns == 0 &&
         2 * map.width >= kLanes<T>;
}

/// Vectors `first` on of the six lines, as many as the next row of tiles (VECTORS 0: the next two) has.
template <typename T, typename Transform, int VECTORS>
ALWAYS_INLINE void rows_to_block(TileRow* at, const Channel<const T>& channel, const T* zeros, int first,
                                 Vector<T> (*lines)[kTileOutputs]) {
  constexpr int kFrom = Transform::kFrom, kHalf = kLanes<T> / 2, kCount = larger(VECTORS, 1);
  const T *row[kFrom], *second[kFrom];
  at->list<Transform>(channel, zeros, row);
  at->next();
  if (VECTORS == 0) {
    at->list<Transform>(channel, zeros, second);
    at->next();
  }
#pragma GCC unroll 4
  for (int v = 0; v < kCount; ++v) {
    Vector<T> x[kFrom], to[kTileInputs];
#pragma GCC unroll 6
    for (int i = 0; i < kFrom; ++i) {
      x[i] = VECTORS ? load(row[i] + v * kLanes<T>)
                     : join_halves<T>(load_first(row[i], kHalf), load_first(second[i], kHalf));
    }
    Transform::template apply<T>(x, to);
#pragma GCC unroll 6
    for (int i = 0; i < kTileInputs; ++i) lines[i][first + v] = to[i];
  }
}

/// As transform_channel. A row of tiles has VECTORS vectors of pixels; 0: half of one.
template <typename T, typename Transform, int VECTORS>
void blocks_to_planes(const TileRows& tiles, const Channel<const T>& channel, const Lines<T>& memory,
                      const Neighbours<T>& neighbours, T* planes, ptrdiff_t pitch) {
  const auto left_exists = neighbours.left[0], right_exists = neighbours.right[0];  // alike in all blocks
  const Channel<const T> from = channel;                                            // as TileRow's values
  const T* zeros = memory.zeros;
  for (TileRow at(tiles); at.left > 0; planes += kLanes<T>) {
    Vector<T> lines[kTileInputs][kTileOutputs];
#pragma GCC unroll 4
    for (int v = 0; v < kTileOutputs; v += larger(VECTORS, 1)) {
      rows_to_block<T, Transform, VECTORS>(&at, from, zeros, v, lines);
    }
    T* to = planes;
#pragma GCC unroll 6
    for (int i = 0; i < kTileInputs; ++i) {
      Vector<T> x[kTileInputs], v[kTileInputs];
      swap_columns<T, false>(lines[i]);
#pragma GCC unroll 4
      for (int j = 0; j < kTileOutputs; ++j) x[Transform::kBefore + j] = lines[i][j];
      if constexpr (Transform::kFrom == kTileInputs) {
        x[0] = neighbour_column<T, -1>(x[4], x[4], left_exists);
        x[5] = neighbour_column<T, 1>(x[1], x[1], right_exists);
      }
      Transform::template apply<T>(x, v);
#pragma GCC unroll 6
      for (int j = 0; j < kTileInputs; ++j, to += pitch) store(to, v[j]);
    }
  }
}

/// The pixels of a block from its 36 vectors of products, `pitch` apart.
template <typename T>
ALWAYS_INLINE void block_to_pixels(const T* from, ptrdiff_t pitch, T bias, Vector<T> (*pixels)[kTileOutputs]) {
  Vector<T> lines[kTileInputs][kTileOutputs];
#pragma GCC unroll 6
  for (int i = 0; i < kTileInputs; ++i) {
    Vector<T> m[kTileInputs];
#pragma GCC unroll 6
    for (int j = 0; j < kTileInputs; ++j, from += pitch) m[j] = load(from);
    transform_output<T>(m, lines[i]);
    swap_columns<T, true>(lines[i]);
  }
#pragma GCC unroll 4
  for (int v = 0; v < kTileOutputs; ++v) {
    Vector<T> m[kTileInputs], y[kTileOutputs];
#pragma GCC unroll 6
    for (int i = 0; i < kTileInputs; ++i) m[i] = lines[i][v];
    transform_output<T>(m, y);
#pragma GCC unroll 4
    for (int i = 0; i < kTileOutputs; ++i) pixels[i][v] = y[i] + bias;
  }
}

/// The pixels of one row of tiles, from vector `first` of the block's on, or from its second half.
template <typename T, int VECTORS, bool SECOND>
ALWAYS_INLINE void store_rows(TileRow* at, const Vector<T> (*pixels)[kTileOutputs], int first, const Finish<T>& finish,
                              const Channel<T>& channel) {
  constexpr int kCount = larger(VECTORS, 1), kPixels = VECTORS ? kLanes<T> : kLanes<T> / 2;
  const bool plain = VECTORS && !finish.any();
  const int rows = at->rows();
  T* to = channel.row(at->image, at->y, at->width);
#pragma GCC unroll 4
  for (int i = 0; i < kTileOutputs; ++i, to += at->width) {
    if (i >= rows) break;
#pragma GCC unroll 4
    for (int v = 0; v < kCount; ++v) {
      const Vector<T> y = SECOND ? swap_halves<T>(pixels[i][first + v]) : pixels[i][first + v];
      if (plain) {
        store(to + v * kLanes<T>, y, finish.streamed);
      } else {
        finish_and_store<T>(y, finish, to + v * kLanes<T>, kPixels);
      }
    }
  }
  at->next();
}

/// As planes_to_rows.
template <typename T, int VECTORS>
void planes_to_blocks(const TileRows& tiles, const T* planes, ptrdiff_t pitch, const Lines<T>&, T bias,
                      const Finish<T>& finish, const Channel<T>& channel) {
  const Finish<T> do_finish = finish;  // as TileRow's values
  const Channel<T> to = channel;
  for (TileRow at(tiles); at.left > 0; planes += kLanes<T>) {
    Vector<T> pixels[kTileOutputs][kTileOutputs];
    block_to_pixels(planes, pitch, bias, pixels);
#pragma GCC unroll 4
    for (int v = 0; v < kTileOutputs; v += larger(VECTORS, 1)) {
      store_rows<T, VECTORS, false>(&at, pixels, v, do_finish, to);
      if (VECTORS == 0) store_rows<T, VECTORS, true>(&at, pixels, v, do_finish, to);
    }
  }
}

/// How to get the planes of a channel, and back: by blocks where there are such.
template <typename T, typename Transform>
auto choose_transform(const TileMap& map) {
  if (!has_blocks<T>(map)) return transform_channel<T, Transform>;
  const int vectors = map.width / kLanes<T>;
  return vectors == 4   ? blocks_to_planes<T, Transform, 4>
         : vectors == 2 ? blocks_to_planes<T, Transform, 2>
         : vectors == 1 ? blocks_to_planes<T, Transform, 1>
                        : blocks_to_planes<T, Transform, 0>;
}
template <typename T>
auto choose_transform_back(const TileMap& map) {
  if (!has_blocks<T>(map)) return planes_to_rows<T>;
  const int vectors = map.width / kLanes<T>;
  return vectors == 4   ? planes_to_blocks<T, 4>
         : vectors == 2 ? planes_to_blocks<T, 2>
         : vectors == 1 ? planes_to_blocks<T, 1>
                        : planes_to_blocks<T, 0>;
}

}  // namespace
}  // namespace caffe_layers
