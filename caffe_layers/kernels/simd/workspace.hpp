#pragma once

// How the scratch memory is laid out: transposed weights shared by all threads, then one Scratch per thread.

#include <omp.h>

#include "caffe_layers/kernels/simd/packed.hpp"

namespace caffe_layers {
namespace {

/// Hands out pieces of memory; with base null it only counts the bytes.
struct Arena {
  char* base;
  size_t used;
  bool writes;  ///< else what is in the memory is another thread's

  template <typename U>
  U* take(ptrdiff_t count) {
    U* piece = base ? reinterpret_cast<U*>(base + used) : nullptr;
    used += (count * sizeof(U) + kCacheLine - 1) / kCacheLine * kCacheLine;
    return piece;
  }
  template <typename U>
  U* take_zeros(ptrdiff_t count) {
    U* piece = take<U>(count);
    if (piece && writes) fill(piece, count, U(0));
    return piece;
  }
};

/// The output of a stage, or its gradient: of the whole image next to a spatial stage, else of one tile.
template <typename T>
struct Buffer {
  T* data;
  ptrdiff_t pitch;
  bool image;
};

/// For backward, weights with the inputs as outputs.
template <typename T>
struct Shared {
  T* transposed[kFusedMaxStages];
  static Shared take(Arena* arena, const FusedChain& chain, bool backward);
};

template <typename T>
struct Scratch {
  SpatialScratch<T> spatial;
  const T **in, **out_diff;  ///< lists of planes
  T **out, **in_diff;
  Buffer<T> value[kFusedMaxStages], diff[kFusedMaxStages];
  T *weight_diff[kFusedMaxStages], *bias_diff[kFusedMaxStages];  ///< those of a part of the images: Sums
  Planes<T> bottom_diff;  ///< before it is finished: of a group (direct.hpp) or the image; none where 1x1 comes first
  static Scratch take(Arena* arena, const FusedChain& chain, bool backward);
};

/// The images of a batch in parts, each with sums of its own for the parameters' gradients: a large part for each
/// thread, and small ones for those that are done first, for a neighbour's work may take any core a tenth of its time.
/// The number of threads alone decides about the parts, and so about the sums' rounding.
struct ImageParts {
  ptrdiff_t batch;
  int threads;

  explicit ImageParts(const FusedChain& chain) : batch(chain.batch), threads(chain.threads) {}
  /// Images in a small part; 0: there are no small parts.
  ptrdiff_t small() const { return threads > 1 ? batch / (8 * threads) : 0; }
  int small_parts() const { return small() > 0 ? 2 * threads : 0; }
  int count() const { return threads + small_parts(); }
  /// The first image of a part: 0 .. threads - 1 are the large ones.
  ptrdiff_t begin(int part) const {
    const ptrdiff_t large = batch - small() * small_parts();
    return part <= threads ? large * part / threads : large + (part - threads) * small();
  }
};

inline bool is_spatial(const FusedStage& stage) { return stage.kernel > 1 || stage.stride > 1 || stage.pad > 0; }

inline ptrdiff_t weight_count(const FusedStage& stage) {
  return static_cast<ptrdiff_t>(stage.out_channels) * stage.group_inputs * stage.kernel * stage.kernel;
}

/// Pixels that the 1x1 stages treat at once: about 256 KB per stage, but at least 256, because short runs in many
/// planes are written to memory slowly.
template <typename T>
int tile_pixels(const FusedChain& chain) {
  int channels = 1, pixels = 1;
  for (int s = 0; s < chain.num_stages; ++s) {
    channels = larger(channels, larger(chain.stages[s].in_channels, chain.stages[s].out_channels));
    pixels = larger(pixels, chain.stages[s].out_height * chain.stages[s].out_width);
  }
  const int most = larger(256, 262144 / (channels * static_cast<int>(sizeof(T)))), tiles = (pixels + most - 1) / most;
  return round_up((pixels + tiles - 1) / tiles, kLanes<T>);
}

/// Rows of the output that forward computes at once. A single spatial stage in front can work on bands of rows: about 1
/// MB of its output, and as many bands of an image as are asked for.
template <typename T>
int forward_rows(const FusedChain& chain, int wanted) {
  const FusedStage& first = chain.stages[0];
  for (int s = 1; s < chain.num_stages; ++s) {
    if (is_spatial(chain.stages[s])) return chain.stages[chain.num_stages - 1].out_height;
  }
  const ptrdiff_t bytes = static_cast<ptrdiff_t>(sizeof(T)) * first.out_channels * first.out_height * first.out_width;
  const int bands = larger(static_cast<int>(bytes >> 20) + 1, wanted);
  return larger(1, (first.out_height + bands - 1) / bands);
}

template <typename T>
Buffer<T> take_buffer(Arena* arena, const FusedChain& chain, int s) {
  const FusedStage& stage = chain.stages[s];
  const bool image = is_spatial(stage) || (s + 1 < chain.num_stages && is_spatial(chain.stages[s + 1]));
  const int pixels = image ? round_up(stage.out_height * stage.out_width, kLanes<T>) : tile_pixels<T>(chain);
  // A line between planes keeps those of a group out of each other's cache sets; small ones of 216 or 864 channels are
  // in different ones without.
  const bool apart = pixels * static_cast<int>(sizeof(T)) >= 1024 || stage.out_channels % 64 == 0;
  const ptrdiff_t pitch = pixels + (apart ? kLanes<T> : 0);
  return {arena->take<T>(stage.out_channels * pitch), pitch, image};
}

/// As many channels of in_height x in_width pixels as Scratch::bottom_diff says.
template <typename T>
Planes<T> take_bottom_diff(Arena* arena, const FusedChain& chain) {
  const FusedStage& first = chain.stages[0];
  const ptrdiff_t pixels = static_cast<ptrdiff_t>(first.in_height) * first.in_width;
  const int channels = is_direct<T>(first) ? first.group_inputs : is_spatial(first) ? first.in_channels : 0;
  return {arena->take<T>(channels * pixels), pixels, nullptr};
}

template <typename T>
SpatialScratch<T> take_spatial(Arena* arena, const FusedChain& chain, bool backward) {
  ptrdiff_t split = 0, staging = 0;
  int taps = 1, channels = 1, phases = 1, width = 1;
  for (int s = 0; s < chain.num_stages; ++s) {
    const FusedStage& stage = chain.stages[s];
    if (!is_spatial(stage)) continue;
    width = larger(width, larger(stage.in_width, stage.out_width));
    if (is_direct<T>(stage) || is_strided<T>(stage)) continue;
    if (is_packed<T>(stage)) {
      channels = larger(channels, stage.group_inputs);
      split = larger(split, stage.group_inputs * packed_pitch<T>(stage));
      continue;
    }
    const int count = stage.kernel * stage.kernel;
    taps = larger(taps, count);
    channels = larger(channels, larger(stage.group_inputs, stage.group_outputs) * count);
    phases = larger(phases, stage.stride * stage.stride);
    const Split in = input_split<T>(stage), out = output_split<T>(stage);
    split = larger(split, stage.group_inputs * in.channel_size);
    if (in.linear) staging = larger(staging, stage.group_outputs * in.phase_size);
    if (!backward) continue;
    split = larger(split, stage.group_outputs * out.channel_size);
    if (out.linear || stage.stride > 1) {
      staging = larger(staging, stage.stride * stage.group_inputs * out.phase_size);
    }
  }
  SpatialScratch<T> scratch;
  scratch.split = arena->take<T>(split);
  scratch.staging = arena->take<T>(staging);
  scratch.zeros = arena->take_zeros<T>(width);
  scratch.taps = arena->take<const T*>(channels);
  scratch.planes = arena->take<T*>(channels);
  scratch.offset = arena->take<ptrdiff_t>(taps);
  scratch.tap = arena->take<int>(taps);
  scratch.phase_begin = arena->take<int>(phases + 1);
  return scratch;
}

template <typename T>
Shared<T> Shared<T>::take(Arena* arena, const FusedChain& chain, bool backward) {
  Shared<T> shared = {};
  for (int s = 0; backward && s < chain.num_stages; ++s) {
    shared.transposed[s] = arena->take<T>(weight_count(chain.stages[s]));
  }
  return shared;
}

template <typename T>
Scratch<T> Scratch<T>::take(Arena* arena, const FusedChain& chain, bool backward) {
  Scratch<T> scratch = {};
  scratch.spatial = take_spatial<T>(arena, chain, backward);
  int channels = 1;
  for (int s = 0; s < chain.num_stages; ++s) {
    const FusedStage& stage = chain.stages[s];
    channels = larger(channels, larger(stage.in_channels, stage.out_channels));
    if (s + 1 < chain.num_stages) {
      scratch.value[s] = take_buffer<T>(arena, chain, s);
      // The gradient takes the value's place, unless a spatial stage reads the one while it writes the other.
      if (backward) {
        scratch.diff[s] = is_spatial(chain.stages[s + 1]) ? take_buffer<T>(arena, chain, s) : scratch.value[s];
      }
    }
  }
  if (backward) scratch.bottom_diff = take_bottom_diff<T>(arena, chain);
  scratch.in = arena->take<const T*>(channels);
  scratch.out_diff = arena->take<const T*>(channels);
  scratch.out = arena->take<T*>(channels);
  scratch.in_diff = arena->take<T*>(channels);
  return scratch;
}

/// The gradients of the parameters that a part of the images gives.
template <typename T>
struct Sums {
  T *weight[kFusedMaxStages], *bias[kFusedMaxStages];

  static Sums take(Arena* arena, const FusedChain& chain) {
    Sums sums = {};
    for (int s = 0; s < chain.num_stages; ++s) {
      sums.weight[s] = arena->take<T>(weight_count(chain.stages[s]));
      sums.bias[s] = arena->take<T>(chain.stages[s].out_channels);
    }
    return sums;
  }
};

/// sums += one part's; null: they were not asked for. Called by all threads for all parts, always in the same order,
/// so that sums are the same every time: each adds up its share of the values.
template <typename T>
inline void add_part(const T* part, ptrdiff_t count, T* sums) {
  const ptrdiff_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
  for (ptrdiff_t i = count * thread / threads; sums && i < count * (thread + 1) / threads; ++i) sums[i] += part[i];
}

/// How the bottom's gradient is written. Past the caches, unless it is read there first.
template <typename T>
Finish<T> bottom_finish(const FusedChain& chain, const T* bottom, const FusedGradients<T>& gradients) {
  const FusedStage& first = chain.stages[0];
  const ptrdiff_t size = static_cast<ptrdiff_t>(first.in_channels) * first.in_height * first.in_width;
  const bool streamed = is_streamed(gradients.bottom, chain.batch * size, first.in_width);
  return {gradients.skip, gradients.bottom, false, streamed && gradients.skip != gradients.bottom,
          true,           nullptr,          0,     gradients.bottom_relu ? bottom : nullptr};
}

/// The pieces of one call's scratch memory: what Shared::take and Scratch::take take from an arena.
template <typename Shared, typename Scratch>
struct Workspace {
  const FusedChain& chain;
  bool backward;
  size_t shared_bytes, scratch_bytes;

  Workspace(const FusedChain& chain, bool backward) : chain(chain), backward(backward) {
    Arena arena = {nullptr, 0, false};
    Shared::take(&arena, chain, backward);
    shared_bytes = arena.used;
    arena.used = 0;
    Scratch::take(&arena, chain, backward);
    scratch_bytes = arena.used + kCacheLine;  // odd number of lines between threads
  }
  size_t bytes() const { return shared_bytes + chain.threads * scratch_bytes + kCacheLine; }
  char* end(void* workspace) const { return aligned(workspace) + shared_bytes + chain.threads * scratch_bytes; }
  static char* aligned(void* workspace) {
    return reinterpret_cast<char*>((reinterpret_cast<size_t>(workspace) + kCacheLine - 1) / kCacheLine * kCacheLine);
  }
  Shared shared(void* workspace) const {
    Arena arena = {aligned(workspace), 0, true};
    return Shared::take(&arena, chain, backward);
  }
  /// That of `thread`, to work with; and to read what it has left there.
  Scratch scratch(void* workspace, int thread) const { return take(workspace, thread, true); }
  Scratch results(void* workspace, int thread) const { return take(workspace, thread, false); }

 private:
  Scratch take(void* workspace, int thread, bool writes) const {
    Arena arena = {aligned(workspace) + shared_bytes + thread * scratch_bytes, 0, writes};
    return Scratch::take(&arena, chain, backward);
  }
};

/// Scratch memory of backward: what Workspace says, and after it the sums of every part.
template <typename T>
struct BackwardWorkspace : Workspace<Shared<T>, Scratch<T>> {
  using Base = Workspace<Shared<T>, Scratch<T>>;
  size_t sums_bytes;
  ImageParts parts;

  explicit BackwardWorkspace(const FusedChain& chain) : Base(chain, true), parts(chain) {
    Arena arena = {nullptr, 0, false};
    Sums<T>::take(&arena, chain);
    sums_bytes = arena.used + kCacheLine;  // odd number of lines between parts
  }
  size_t bytes() const { return Base::bytes() + parts.count() * sums_bytes; }
  Sums<T> sums(void* workspace, int part) const {
    Arena arena = {Base::end(workspace) + part * sums_bytes, 0, false};
    return Sums<T>::take(&arena, this->chain);
  }
};

}  // namespace
}  // namespace caffe_layers
