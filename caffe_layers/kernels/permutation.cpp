#include "caffe_layers/kernels/permutation.hpp"

#include "caffe_layers/kernels/streaming.hpp"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

namespace caffe_layers {

namespace {

std::vector<int> interleave_table(std::uint32_t branches, int channels) {
  if (branches == 0 || channels % static_cast<std::int64_t>(branches) != 0) {
    throw std::invalid_argument("interleave is " + std::to_string(branches) +
                                ": must be a number of branches that divides C = " + std::to_string(channels));
  }
  const int width = channels / static_cast<int>(branches);
  std::vector<int> perm;
  for (int j = 0; j < width; ++j) {
    for (int g = 0; g < static_cast<int>(branches); ++g) perm.push_back(g * width + j);
  }
  return perm;
}

std::vector<int> checked_table(const std::vector<std::uint32_t>& index, int channels) {
  const std::string range = "0 .. " + std::to_string(channels - 1);
  const std::string rule = ": each of " + range + " must appear once (C = " + std::to_string(channels) + ")";
  std::vector<int> first_use(channels, -1);
  for (std::size_t c = 0; c < index.size(); ++c) {
    const std::string entry = "index entry " + std::to_string(c) + " is " + std::to_string(index[c]);
    if (index[c] >= static_cast<std::uint32_t>(channels)) throw std::invalid_argument(entry + rule);
    int& first = first_use[index[c]];
    if (first >= 0) throw std::invalid_argument(entry + ", as entry " + std::to_string(first) + " is" + rule);
    first = static_cast<int>(c);
  }
  if (index.size() < static_cast<std::size_t>(channels)) {
    throw std::invalid_argument("index ends before entry " + std::to_string(index.size()) + rule);
  }
  return {index.begin(), index.end()};
}

/// Below this size, threads cost more than they save.
constexpr std::size_t kSerialBytes = 32 << 10;

/// Up to here a tensor is not written past the caches: bottom and top fit them, and their reader computes too little to
/// fetch it meanwhile.
constexpr std::size_t kCachedBytes = 8 << 20;

/// Planes are fetched this far ahead: processors do not foresee where the next one is. Not those of less than
/// kFetchedBytes in the caches, which are copied as fast as they are asked for.
constexpr std::size_t kAheadBytes = 4 << 10, kFetchedBytes = 1 << 10;

#ifdef __SSE2__
constexpr std::size_t kLine = 64;

/// Copies whole lines, aligned to 16 bytes, past the caches if STREAM. Meanwhile the second-level cache begins to fetch
/// as many from `ahead` on: each is asked for twice, for then it comes sooner (Zen 4: 36 instead of 28 GB/s on one
/// core).
template <bool STREAM>
void copy_lines(const void* from, std::size_t bytes, void* to, const void* ahead) {
  const auto* source = static_cast<const __m128i*>(from);
  auto* target = static_cast<__m128i*>(to);
  for (std::size_t i = 0; i < bytes / sizeof(__m128i); i += 4) {
    __builtin_prefetch(static_cast<const __m128i*>(ahead) + i, 0, 2);
    __builtin_prefetch(static_cast<const __m128i*>(ahead) + i + 2, 0, 2);
    const __m128i line[] = {_mm_loadu_si128(source + i), _mm_loadu_si128(source + i + 1),
                            _mm_loadu_si128(source + i + 2), _mm_loadu_si128(source + i + 3)};
    for (int k = 0; k < 4; ++k)
      STREAM ? _mm_stream_si128(target + i + k, line[k]) : _mm_store_si128(target + i + k, line[k]);
  }
}
#else
constexpr std::size_t kLine = 1;

template <bool STREAM>
void copy_lines(const void* from, std::size_t bytes, void* to, const void*) {
  std::memcpy(to, from, bytes);
}
#endif

}  // namespace

std::vector<int> resolve_permutation(const PermutationSpec& spec, int channels) {
  if (spec.interleave && !spec.index.empty()) {
    throw std::invalid_argument("interleave is " + std::to_string(*spec.interleave) + " and index has " +
                                std::to_string(spec.index.size()) + " entries: give one of the two");
  }
  std::vector<int> perm(channels);
  if (spec.interleave) {
    perm = interleave_table(*spec.interleave, channels);
  } else if (!spec.index.empty()) {
    perm = checked_table(spec.index, channels);
  } else {
    std::iota(perm.begin(), perm.end(), 0);
  }
  return spec.inverse ? invert_permutation(perm) : perm;
}

std::vector<int> invert_permutation(const std::vector<int>& perm) {
  std::vector<int> inverse(perm.size());
  for (std::size_t c = 0; c < perm.size(); ++c) inverse[perm[c]] = static_cast<int>(c);
  return inverse;
}

template <typename T>
void permute_channels(const T* bottom, const int* perm, int batch, int channels, std::size_t plane, T* top) {
  const std::size_t plane_bytes = plane * sizeof(T), bytes = plane_bytes * channels * batch;
  const bool stream = bytes > kCachedBytes;
  const bool lines = plane_bytes % kLine == 0 && reinterpret_cast<std::uintptr_t>(top) % 16 == 0 &&
                     (stream || plane_bytes >= kFetchedBytes);
  const auto copy = stream ? copy_lines<true> : copy_lines<false>;
  const int planes_ahead = static_cast<int>(std::max<std::size_t>(1, kAheadBytes / plane_bytes));
#pragma omp parallel if (bytes > kSerialBytes)
  {
#pragma omp for collapse(2) schedule(static)
    for (int n = 0; n < batch; ++n) {
      for (int c = 0; c < channels; ++c) {
        const T* image = bottom + static_cast<std::size_t>(n) * channels * plane;
        const T* from = image + perm[c] * plane;
        T* to = top + (static_cast<std::size_t>(n) * channels + c) * plane;
        if (lines) {
          copy(from, plane_bytes, to, image + perm[std::min(c + planes_ahead, channels - 1)] * plane);
        } else if (plane == 1) {
          *to = *from;
        } else {
          std::memcpy(to, from, plane_bytes);
        }
      }
    }
    end_streams();
  }
}

template void permute_channels<float>(const float*, const int*, int, int, std::size_t, float*);
template void permute_channels<double>(const double*, const int*, int, int, std::size_t, double*);

}  // namespace caffe_layers
