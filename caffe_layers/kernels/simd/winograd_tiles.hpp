#pragma once

// Between the rows of a channel's images and the 36 planes of its transformed tiles, one value per tile in each. In
// between there are lines: one per row of a tile, all tiles of a job side by side in it, four pixels each.

#include "caffe_layers/kernels/simd/multiply_gradient.hpp"
#include "caffe_layers/kernels/simd/winograd_transforms.hpp"
#include "caffe_layers/kernels/simd/workspace.hpp"

namespace caffe_layers {
namespace {

/// Images in tiles of 4 x 4 pixels, those at the right and bottom edge perhaps only in part.
struct TileMap {
  int height, width, rows, columns;  ///< in pixels, in tiles
};

/// Rows of tiles begin .. begin + count - 1, counted through all images; `tiles`: all of them, in whole vectors.
struct TileRows {
  const TileMap& map;
  ptrdiff_t begin;
  int count, tiles;
};

/// A channel in all images; `ahead`: how far it is to the next, which the caches begin to fetch.
template <typename T>
struct Channel {
  T* data;
  ptrdiff_t image_pitch, ahead;
  T* row(ptrdiff_t image, int y, int width) const {
    return data + image * image_pitch + static_cast<ptrdiff_t>(y) * width;
  }
};

/// One row of tiles of a job after the other. With values, which the compiler needs not load again after each store.
struct TileRow {
  int height, width;
  ptrdiff_t image;
  int y, left;  ///< the first row of pixels; rows of tiles from this one on

  explicit TileRow(const TileRows& tiles)
      : height(tiles.map.height),
        width(tiles.map.width),
        image(tiles.begin / tiles.map.rows),
        y(static_cast<int>(tiles.begin % tiles.map.rows) * kTileOutputs),
        left(tiles.count) {}
  void next() {
    --left;
    y += kTileOutputs;
    if (y >= height) {
      y = 0;
      ++image;
    }
  }
  /// Its rows of pixels; none behind the last row of tiles.
  int rows() const { return left > 0 ? smaller(kTileOutputs, height - y) : 0; }
  /// The rows that a transform reads, zeros outside of the image; the caches begin to fetch those of the next channel.
  template <typename Transform, typename T>
  ALWAYS_INLINE void list(const Channel<const T>& channel, const T* zeros, const T** row) const {
    const T* first = channel.row(image, y, width);
    const unsigned exist = left > 0 ? height : 0;
    if (exist) fetch_run<true>(first + channel.ahead, kTileOutputs * width);
#pragma GCC unroll 6
    for (int i = 0; i < Transform::kFrom; ++i) {
      const int at = i - Transform::kBefore;
      row[i] = static_cast<unsigned>(y + at) < exist ? first + at * width : zeros;
    }
  }
};

/// The six lines of a channel, `pitch` apart.
template <typename T>
struct Lines {
  T* data;
  ptrdiff_t pitch;
  T* zeros;  ///< a row of an image

  static Lines take(Arena* arena, int tiles, int width) {
    const ptrdiff_t pitch = kTileOutputs * (tiles + kLanes<T>);
    T* data = arena->take<T>(kTileInputs * pitch);
    return {data, pitch, arena->take_zeros<T>(width)};
  }
  void clear() const { fill(data, kTileInputs * pitch, T(0)); }
};

/// The tile that is in a lane after swap_columns.
template <typename T>
constexpr int column_tile(int lane) {
  return kLanes<T> < 4 ? lane : lane % 4 * (kLanes<T> / 4) + lane / 4;
}
template <typename T>
constexpr int column_lane(int tile) {
  return kLanes<T> < 4 ? tile : tile % (kLanes<T> / 4) * 4 + tile / (kLanes<T> / 4);
}

/// Which tiles have one to their left and right: all bits set or none, in the order of column_tile.
template <typename T>
struct Neighbours {
  typedef typename VectorOf<T>::Index Mask;
  Mask *left, *right;

  static Neighbours take(Arena* arena, int vectors) {
    Mask* left = arena->take<Mask>(vectors);
    return {left, arena->take<Mask>(vectors)};
  }
  /// Of `tiles` tiles, `columns` in a row.
  void find(int tiles, int columns) const {
    for (int tile = 0; tile < tiles; ++tile) {
      const int column = tile % columns, lane = column_lane<T>(tile % kLanes<T>);
      left[tile / kLanes<T>][lane] = column > 0 ? -1 : 0;
      right[tile / kLanes<T>][lane] = column + 1 < columns ? -1 : 0;
    }
  }
};

/// From four vectors of a line to the four columns of its tiles, or BACK. The tiles' order is the one that stays within
/// 128 bits.
template <typename T, bool BACK>
ALWAYS_INLINE void swap_columns(Vector<T>* x) {
  if constexpr (kLanes<T> == 2) {
    // Two vectors a tile, columns 0, 1 and 2, 3.
    constexpr int kOther = BACK ? 1 : 2;
    exchange<T, 1>(x, x + kOther);
    exchange<T, 1>(x + 3 - kOther, x + 3);
    const Vector<T> second = x[1];
    x[1] = x[2];
    x[2] = second;
  } else {
    exchange<T, 1>(x, x + 1);
    exchange<T, 1>(x + 2, x + 3);
    exchange<T, 2>(x, x + 2);
    exchange<T, 2>(x + 1, x + 3);
  }
}

/// A column of the tiles STEP (1 or -1) further on; `next`: the column of the vector of tiles there.
template <typename T, int STEP>
ALWAYS_INLINE Vector<T> neighbour_column(Vector<T> column, Vector<T> next, typename VectorOf<T>::Index exists) {
  typename VectorOf<T>::Index from = {};
  for (int lane = 0; lane < kLanes<T>; ++lane) {
    const int tile = column_tile<T>(lane) + STEP;
    const bool inside = tile >= 0 && tile < kLanes<T>;
    from[lane] = inside ? column_lane<T>(tile) : kLanes<T> + column_lane<T>(tile - STEP * kLanes<T>);
  }
  const Vector<T> value = __builtin_shuffle(column, next, from);
  return reinterpret_cast<Vector<T>>(reinterpret_cast<typename VectorOf<T>::Index>(value) & exists);
}

/// The vertical transform: six lines from the rows of a channel.
template <typename T, typename Transform>
void rows_to_lines(const TileRows& tiles, const Channel<const T>& channel, const Lines<T>& lines) {
  const int width = tiles.map.width, line = kTileOutputs * tiles.map.columns;
  const ptrdiff_t pitch = lines.pitch;
  T* to = lines.data;
  for (TileRow at(tiles); at.left > 0; at.next()) {
    const T* row[Transform::kFrom];
    at.list<Transform>(channel, lines.zeros, row);
    const auto transform = [&](int column, auto load_pixels) {
      Vector<T> x[Transform::kFrom], v[kTileInputs];
#pragma GCC unroll 6
      for (int i = 0; i < Transform::kFrom; ++i) x[i] = load_pixels(row[i] + column);
      Transform::template apply<T>(x, v);
#pragma GCC unroll 6
      for (int i = 0; i < kTileInputs; ++i) store(to + i * pitch + column, v[i]);
    };
    int column = 0;
    for (; column + kLanes<T> <= width; column += kLanes<T>) transform(column, [](const T* p) { return load(p); });
    for (; column < line; column += kLanes<T>) {  // zeros behind the row's end
      const int lanes = larger(width - column, 0);
      transform(column, [&](const T* p) { return load_first(p, lanes); });
    }
    to += line;
  }
}

/// The horizontal transform: six planes, `pitch` apart, from a line.
template <typename T, typename Transform>
void line_to_planes(const T* line, int tiles, const Neighbours<T>& neighbours, T* planes, ptrdiff_t pitch) {
  Vector<T> before = {}, next[kTileOutputs];
  const auto load_columns = [&] {
#pragma GCC unroll 4
    for (int i = 0; i < kTileOutputs; ++i, line += kLanes<T>) next[i] = load(line);
    swap_columns<T, false>(next);
  };
  load_columns();
  for (int tile = 0; tile < tiles; tile += kLanes<T>) {
    Vector<T> x[kTileInputs], v[kTileInputs];
#pragma GCC unroll 4
    for (int i = 0; i < kTileOutputs; ++i) x[Transform::kBefore + i] = next[i];
    load_columns();  // behind the last tiles there are zeros
    if constexpr (Transform::kFrom == kTileInputs) {
      x[0] = neighbour_column<T, -1>(x[4], before, neighbours.left[tile / kLanes<T>]);
      x[5] = neighbour_column<T, 1>(x[1], next[0], neighbours.right[tile / kLanes<T>]);
      before = x[4];
    }
    Transform::template apply<T>(x, v);
#pragma GCC unroll 6
    for (int i = 0; i < kTileInputs; ++i) store(planes + i * pitch + tile, v[i]);
  }
}

/// All 36 planes of a channel, `pitch` apart.
template <typename T, typename Transform>
void transform_channel(const TileRows& tiles, const Channel<const T>& channel, const Lines<T>& lines,
                       const Neighbours<T>& neighbours, T* planes, ptrdiff_t pitch) {
  rows_to_lines<T, Transform>(tiles, channel, lines);
  for (int i = 0; i < kTileInputs; ++i) {
    line_to_planes<T, Transform>(lines.data + i * lines.pitch, tiles.tiles, neighbours,
                                 planes + i * kTileInputs * pitch, pitch);
  }
}

/// Back from the products: a line from its six planes.
template <typename T>
void planes_to_line(const T* planes, ptrdiff_t pitch, int tiles, T* line) {
  for (int tile = 0; tile < tiles; tile += kLanes<T>) {
    Vector<T> m[kTileInputs], y[kTileOutputs];
#pragma GCC unroll 6
    for (int i = 0; i < kTileInputs; ++i) m[i] = load(planes + i * pitch + tile);
    transform_output<T>(m, y);
    swap_columns<T, true>(y);
#pragma GCC unroll 4
    for (int i = 0; i < kTileOutputs; ++i, line += kLanes<T>) store(line, y[i]);
  }
}

/// `lanes` pixels of a result on their way to memory.
template <typename T>
ALWAYS_INLINE void finish_and_store(Vector<T> y, const Finish<T>& finish, T* to, int lanes) {
  if (lanes < kLanes<T>) {
    store_first(to, finished<T, false>(finish, y, to, lanes), lanes);
  } else {
    store(to, finished<T, true>(finish, y, to, lanes), finish.streamed);
  }
}

/// The rows of a channel from its six lines.
template <typename T>
void lines_to_rows(const TileRows& tiles, const Lines<T>& lines, T bias, const Finish<T>& finish,
                   const Channel<T>& channel) {
  const int width = tiles.map.width;
  const ptrdiff_t pitch = lines.pitch;
  const T* from = lines.data;
  for (TileRow at(tiles); at.left > 0; at.next()) {
    T* to = channel.row(at.image, at.y, width);
    const int rows = at.rows();
    for (int column = 0; column < width; column += kLanes<T>) {
      Vector<T> m[kTileInputs], pixels[kTileOutputs];
#pragma GCC unroll 6
      for (int i = 0; i < kTileInputs; ++i) m[i] = load(from + i * pitch + column);
      transform_output<T>(m, pixels);
      const int lanes = smaller(width - column, kLanes<T>);
#pragma GCC unroll 4
      for (int i = 0; i < kTileOutputs; ++i) {
        if (i < rows) finish_and_store<T>(pixels[i] + bias, finish, to + i * width + column, lanes);
      }
    }
    from += kTileOutputs * tiles.map.columns;
  }
}

/// The rows of a channel from its 36 planes of products.
template <typename T>
void planes_to_rows(const TileRows& tiles, const T* planes, ptrdiff_t pitch, const Lines<T>& lines, T bias,
                    const Finish<T>& finish, const Channel<T>& channel) {
  for (int i = 0; i < kTileInputs; ++i) {
    planes_to_line(planes + i * kTileInputs * pitch, pitch, tiles.tiles, lines.data + i * lines.pitch);
  }
  lines_to_rows(tiles, lines, bias, finish, channel);
}

}  // namespace
}  // namespace caffe_layers
