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

/// Planes from this size on are fetched ahead: processors do not foresee where the next one is. Shorter ones are copied
/// as fast as they are asked for.
constexpr std::size_t kFetchedBytes = 1 << 10;

/// The second-level cache begins to fetch these bytes.
void fetch_lines(const void* from, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i, 0, 2);
}

#ifdef __SSE2__
/// Copies whole 64-byte lines to aligned memory past the caches, which begin to fetch those from `next` on.
void stream_lines(const void* from, std::size_t bytes, void* to, const void* next) {
  const auto *source = static_cast<const __m128i*>(from), *ahead = static_cast<const __m128i*>(next);
  auto* target = static_cast<__m128i*>(to);
  for (std::size_t i = 0; i < bytes / sizeof(__m128i); i += 4) {
    __builtin_prefetch(ahead + i, 0, 2);
    const __m128i a = _mm_loadu_si128(source + i), b = _mm_loadu_si128(source + i + 1);
    const __m128i c = _mm_loadu_si128(source + i + 2), d = _mm_loadu_si128(source + i + 3);
    _mm_stream_si128(target + i, a);
    _mm_stream_si128(target + i + 1, b);
    _mm_stream_si128(target + i + 2, c);
    _mm_stream_si128(target + i + 3, d);
  }
}
#else
void stream_lines(const void* from, std::size_t bytes, void* to, const void*) { std::memcpy(to, from, bytes); }
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
  // Not at that size itself: such a tensor is copied faster through a third-level cache of four times as much.
  const bool stream =
      bytes > kStreamedBytes && plane_bytes % 64 == 0 && reinterpret_cast<std::uintptr_t>(top) % 16 == 0;
#pragma omp parallel if (bytes > kSerialBytes)
  {
#pragma omp for collapse(2) schedule(static)
    for (int n = 0; n < batch; ++n) {
      for (int c = 0; c < channels; ++c) {
        const std::size_t image = static_cast<std::size_t>(n) * channels;
        const T* from = bottom + (image + perm[c]) * plane;
        T* to = top + (image + c) * plane;
        const auto ahead = [&](int planes) {
          return bottom + (image + perm[std::min(c + planes, channels - 1)]) * plane;
        };
        if (stream) {
          stream_lines(from, plane_bytes, to, ahead(1));
        } else if (plane == 1) {
          *to = *from;
        } else {
          if (plane_bytes >= kFetchedBytes) fetch_lines(ahead(4), plane_bytes);
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
