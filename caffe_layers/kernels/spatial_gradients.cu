#include "caffe_layers/kernels/spatial_gradients.cuh"

#include "caffe_layers/kernels/lane_sums.cuh"
#include "caffe_layers/kernels/spatial_pieces.cuh"

namespace caffe_layers {

namespace {

/// Rows of a stride 1 stage's map that a thread takes at a time; of stride 2 it takes one row of the output.
constexpr int kRows = 4;

/// What a thread computes at a time: ROWS rows of one vector's columns in one map. Pieces of a map are in order of
/// columns, then rows.
struct MapPieces {
  Divisor columns, chunks;
  /// Of this thread's piece, leaving the number of its map in *item.
  __device__ __forceinline__ void find(unsigned* item, int* column, int* chunk) const {
    unsigned x = *item, y = columns.divide(&x);
    *item = chunks.divide(&y);
    *column = x;
    *chunk = y;
  }
};
template <typename T>
MapPieces map_pieces(int height, int width, int rows) {
  return {Divisor(width / Vector<T>::size), Divisor(ceil_div(height, rows))};
}
unsigned pieces_per_map(const MapPieces& pieces) { return pieces.columns.divisor * pieces.chunks.divisor; }

/// Partial sums of the weight gradient of a 3x3, pad 1 stage; block (o * I + i, slice).
template <typename T, int STRIDE, int ROWS>
__global__ void __launch_bounds__(kThreads)
    row_weight_sums(StageShape s, StageTables tables, MapPieces pieces, unsigned count, const T* __restrict__ in,
                    const T* __restrict__ out_diff, PartialSums<T> target) {
  constexpr int V = Vector<T>::size;
  const int o = blockIdx.x / s.group_in, i = blockIdx.x % s.group_in;
  const T* first_in =
      in + static_cast<size_t>(source_channel(tables, o / s.group_out * s.group_in + i)) * s.in_height * s.in_width;
  const T* first_diff = out_diff + static_cast<size_t>(tables.destination[o]) * s.out_height * s.out_width;
  T sums[kTaps] = {};
  for (unsigned at = blockIdx.y * kThreads + threadIdx.x; at < count; at += gridDim.y * kThreads) {
    unsigned n = at;
    int column, chunk;
    pieces.find(&n, &column, &chunk);
    const int x = column * V, y = chunk * ROWS;
    const T* map = first_in + static_cast<size_t>(n) * s.in_channels * s.in_height * s.in_width;
    const T* diff = first_diff + static_cast<size_t>(n) * s.out_channels * s.out_height * s.out_width;
    Vector<T> d[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      d[r] = y + r < s.out_height ? load_vector(diff + (y + r) * s.out_width + x) : Vector<T>{};
    }
#pragma unroll
    for (int r = 0; r < STRIDE * (ROWS - 1) + 3; ++r) {
      T window[STRIDE * (V - 1) + 3];
      load_window<STRIDE>(map, s.in_height, s.in_width, STRIDE * y - 1 + r, x, window);
#pragma unroll
      for (int row = 0; row < ROWS; ++row) {
        const int ky = r - STRIDE * row;
        if (ky < 0 || ky > 2) continue;
#pragma unroll
        for (int kx = 0; kx < 3; ++kx) {
#pragma unroll
          for (int e = 0; e < V; ++e) sums[ky * 3 + kx] += d[row].at[e] * window[STRIDE * e + kx];
        }
      }
    }
  }
  T* of_warps = shared_memory<T>();
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
    const T sum = sum_over_lanes(sums[tap]);
    if (threadIdx.x % kLanes == 0) of_warps[threadIdx.x / kLanes * kTaps + tap] = sum;
  }
  __syncthreads();
  if (threadIdx.x >= kTaps) return;
  target.partials[static_cast<size_t>(blockIdx.y) * target.entries + target.entry + blockIdx.x * kTaps + threadIdx.x] =
      sum_over_warps(of_warps, kTaps, threadIdx.x);
}

/// sums[r][e], e < 2 V: two input rows from row 2 * y on, from column 2 * x on, of what output rows y and y + 1 met:
/// row 2 * y under the kernel's middle row, row 2 * y + 1 under its last and first, columns likewise.
template <typename T, int V = Vector<T>::size>
__device__ __forceinline__ void spread_rows(const T* diff, int height, int width, int y, int x, const T* w,
                                            T (&sums)[2][2 * V]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool inside = y + r < height;
    const T* row = diff + (inside ? (y + r) * width : 0) + x;
    const Vector<T> d = inside ? load_vector(row) : Vector<T>{};
    const T after = inside && x + V < width ? row[V] : T(0);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const T here = d.at[e], right = e + 1 < V ? d.at[e + 1 < V ? e + 1 : 0] : after;
      if (r == 0) {
        sums[0][2 * e] += w[4] * here;
        sums[0][2 * e + 1] += w[5] * here + w[3] * right;
      }
      const T* k = w + (r == 0 ? 6 : 0);
      sums[1][2 * e] += k[1] * here;
      sums[1][2 * e + 1] += k[2] * here + k[0] * right;
    }
  }
}

/// Input rows that a thread computes at a time of the gradient with respect to the data.
template <int STRIDE>
constexpr int kInputRows = STRIDE == 1 ? kRows : 2;

/// Gradient with respect to the data of a 3x3, pad 1 stage. With stride 1 the same convolution turned by 180 degrees,
/// from outputs to inputs. A thread computes kInputRows rows of STRIDE vectors of one map.
template <typename T, int STRIDE>
__global__ void __launch_bounds__(kThreads)
    row_backward_data(StageShape s, StageTables tables, MapPieces pieces, Divisor channels,
                      const T* __restrict__ weight, const T* __restrict__ out_diff, BottomFinish<T> finish,
                      T* __restrict__ in_diff) {
  constexpr int V = Vector<T>::size;
  unsigned i = blockIdx.x * kThreads + threadIdx.x;
  int column, chunk;
  pieces.find(&i, &column, &chunk);
  const int n = channels.divide(&i), x = column * V, y = chunk * kInputRows<STRIDE>;
  if (n >= s.batch) return;
  T sums[kInputRows<STRIDE>][STRIDE * V] = {};
  const int group = i / s.group_in, first_out = group * s.group_out;
  for (int k = 0; k < s.group_out; ++k) {
    const size_t out_map = static_cast<size_t>(n) * s.out_channels + tables.destination[first_out + k];
    const T* diff = out_diff + out_map * s.out_height * s.out_width;
    const T* w = weight + (static_cast<size_t>(first_out + k) * s.group_in + (i - group * s.group_in)) * kTaps;
    if constexpr (STRIDE == 1) {
      convolve_rows<1, kRows>(diff, s.out_height, s.out_width, y, x, w, true, sums);
    } else {
      spread_rows(diff, s.out_height, s.out_width, y / STRIDE, x, w, sums);
    }
  }
  const size_t map = (static_cast<size_t>(n) * s.in_channels + source_channel(tables, i)) * s.in_height * s.in_width;
#pragma unroll
  for (int r = 0; r < kInputRows<STRIDE>; ++r) {
    if (y + r >= s.in_height) break;
#pragma unroll
    for (int part = 0; part < STRIDE; ++part) {
      Vector<T> value;
#pragma unroll
      for (int e = 0; e < V; ++e) value.at[e] = sums[r][part * V + e];
      const size_t at = map + (y + r) * s.in_width + STRIDE * x + part * V;
      store(in_diff + at, finish(value, at));
    }
  }
}

}  // namespace

template <typename T>
bool reads_rows(const StageShape& s) {
  return s.kernel == 3 && s.pad == 1 && s.dilation == 1 && s.stride <= 2 && s.out_width % Vector<T>::size == 0 &&
         s.in_width == s.stride * s.out_width;
}

template <typename T>
void spatial_weight_sums(const StageShape& shape, const StageTables& tables, const T* in, const T* out_diff,
                         const PartialSums<T>& sums, cudaStream_t stream) {
  if (!reads_rows<T>(shape) || !is_vector_aligned(in) || !is_vector_aligned(out_diff)) {
    stage_weight_sums(shape, tables, in, out_diff, sums, stream);
    return;
  }
  const bool one = shape.stride == 1;
  const auto kernel = one ? row_weight_sums<T, 1, kRows> : row_weight_sums<T, 2, 1>;
  const MapPieces pieces = map_pieces<T>(shape.out_height, shape.out_width, one ? kRows : 1);
  launch(kernel, dim3(shape.out_channels * shape.group_in, sums.slices), kWarps * kTaps * sizeof(T), stream, shape,
         tables, pieces, shape.batch * pieces_per_map(pieces), in, out_diff, sums);
}

template <typename T>
void spatial_backward_data(const StageShape& shape, const StageTables& tables, const T* weight, const T* out_diff,
                           const BottomFinish<T>& finish, T* in_diff, cudaStream_t stream) {
  const bool aligned = is_vector_aligned(out_diff) && is_vector_aligned(in_diff) && is_vector_aligned(finish.skip) &&
                       is_vector_aligned(finish.relu);
  if (!reads_rows<T>(shape) || !aligned) {
    stage_backward_data(shape, tables, weight, out_diff, finish, in_diff, stream);
    return;
  }
  const bool one = shape.stride == 1;
  const auto kernel = one ? row_backward_data<T, 1> : row_backward_data<T, 2>;
  const int rows = one ? kInputRows<1> : kInputRows<2>;
  const MapPieces pieces = map_pieces<T>(shape.in_height, shape.out_width, rows);
  const size_t items = static_cast<size_t>(shape.batch) * shape.in_channels * pieces_per_map(pieces);
  launch(kernel, dim3(ceil_div<size_t>(items, kThreads)), 0, stream, shape, tables, pieces, Divisor(shape.in_channels),
         weight, out_diff, finish, in_diff);
}

template bool reads_rows<float>(const StageShape&);
template bool reads_rows<double>(const StageShape&);
template void spatial_weight_sums<float>(const StageShape&, const StageTables&, const float*, const float*,
                                         const PartialSums<float>&, cudaStream_t);
template void spatial_weight_sums<double>(const StageShape&, const StageTables&, const double*, const double*,
                                          const PartialSums<double>&, cudaStream_t);
template void spatial_backward_data<float>(const StageShape&, const StageTables&, const float*, const float*,
                                           const BottomFinish<float>&, float*, cudaStream_t);
template void spatial_backward_data<double>(const StageShape&, const StageTables&, const double*, const double*,
                                            const BottomFinish<double>&, double*, cudaStream_t);

}  // namespace caffe_layers
