#pragma once

// The gradients of a chain, image after image as in chain.hpp. What forward left nowhere in memory is computed again.

#include "caffe_layers/kernels/simd/chain.hpp"

namespace caffe_layers {
namespace {

/// Which results backward was asked for: stages below `lowest` have none, stages from `highest_weight` on need no
/// output again.
struct Wanted {
  int lowest, highest_weight;
};

template <typename T>
Wanted wanted(const FusedChain& chain, const FusedGradients<T>& gradients) {
  Wanted result = {chain.num_stages, 0};
  for (int s = chain.num_stages - 1; s >= 0; --s) {
    if (gradients.weight[s] || gradients.bias[s]) result.lowest = s;
    if (gradients.weight[s]) result.highest_weight = larger(result.highest_weight, s);
  }
  if (gradients.bottom) result.lowest = 0;
  return result;
}

template <typename T>
bool wants_input(const FusedGradients<T>& gradients, const Wanted& want, int s) {
  return s > want.lowest || gradients.bottom;
}

/// The outputs of the spatial stages and of the segments before the last, as far as a weight gradient needs them.
template <typename T>
void recompute(const Image<T>& image, const Wanted& want) {
  for (int begin = 0; begin < want.highest_weight;) {
    const Segment segment = segment_at(image.chain, begin);
    if (segment.spatial) spatial_stage(image, begin);
    begin = segment.end;
    if (segment.end > want.highest_weight) break;
    const FusedStage& stage = image.chain.stages[segment.end - 1];
    for_each_tile<T>(image.chain, stage.out_height * stage.out_width, [&](int at, int pixels) {
      for (int s = segment.first_pointwise(); s < segment.end; ++s) pointwise_stage(image, s, at, pixels);
    });
  }
}

template <typename T>
void run_backward(const Image<T>& image, const FusedGradients<T>& gradients, const Wanted& want) {
  recompute(image, want);
  for (int end = image.chain.num_stages; end > want.lowest;) {
    int begin = end - 1;
    while (begin > 0 && !is_spatial(image.chain.stages[begin])) --begin;
    const Segment segment = segment_at(image.chain, begin);
    const FusedStage& stage = image.chain.stages[end - 1];
    const int lowest = larger(segment.first_pointwise(), want.lowest);
    for_each_tile<T>(image.chain, lowest < end ? stage.out_height * stage.out_width : 0, [&](int at, int pixels) {
      for (int s = segment.first_pointwise(); s < smaller(end - 1, want.highest_weight); ++s)
        pointwise_stage(image, s, at, pixels);
      for (int s = end - 1; s >= lowest; --s) {
        pointwise_stage_backward(image, gradients, wants_input(gradients, want, s), s, at, pixels);
      }
    });
    if (segment.spatial && begin >= want.lowest) {
      spatial_stage_backward(image, gradients, wants_input(gradients, want, begin), begin);
    }
    end = begin;
  }
}

/// The weights of input channels first .. last - 1 of a 1x1 or 3x3 stage for the way back from the output's gradient:
/// inputs are outputs, and kernels are turned by 180 degrees.
template <typename T>
void transpose_weight_rows(const FusedStage& stage, const T* weight, int first, int last, T* transposed) {
  const int turned[9] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
  const int inputs = stage.group_inputs, outputs = stage.group_outputs, taps = stage.kernel * stage.kernel;
  for (int c = first; c < last; ++c) {
    const ptrdiff_t group_at = static_cast<ptrdiff_t>(c / inputs) * inputs * outputs * taps;
    gather_weights(weight + group_at + c % inputs * taps, 1, taps, outputs, static_cast<ptrdiff_t>(taps) * inputs,
                   turned + 9 - taps, taps, transposed + static_cast<ptrdiff_t>(c) * outputs * taps);
  }
}

/// One image's share of backward. Stages that cannot finish the bottom's gradient as they write it write it to scratch
/// memory.
template <typename T>
void backward_image(Image<T> image, const FusedGradients<T>& gradients, const Wanted& want, T* bottom_diff) {
  const FusedStage& first = image.chain.stages[0];
  const Finish<T> finish = image.bottom_finish;
  const bool apart = bottom_diff && finish.any() && is_spatial(first) && !is_direct<T>(first);
  image.bottom_diff = apart ? image.scratch.bottom_diff.data : bottom_diff;
  if (apart) image.bottom_finish = {};
  run_backward(image, gradients, want);
  if (apart) finish_run<T>(finish, image.bottom_diff, bottom_diff, first.in_channels * image.bottom_pitch());
}

/// Multiply-adds of the gradients of an image's weights, where FetchMeanwhile goes on with them.
template <typename T>
ptrdiff_t weight_products(const FusedChain& chain, const FusedGradients<T>& gradients) {
  ptrdiff_t result = 0;
  for (int s = 0; s < chain.num_stages; ++s) {
    const FusedStage& stage = chain.stages[s];
    const bool fetches = !is_direct<T>(stage) && !is_strided<T>(stage);
    if (gradients.weight[s] && fetches) result += weight_count(stage) * stage.out_height * stage.out_width;
  }
  return result;
}

/// One call of backward.
template <typename T>
struct ChainBackward {
  const FusedChain& chain;
  const FusedParameters<T>& parameters;
  const FusedGradients<T>& gradients;
  const T *bottom, *top_diff;
  Wanted want;
  Finish<T> finish;
  ptrdiff_t products;  ///< weight_products

  /// What image n would wait for, while the one before is at its weight gradients: the top's gradient; on small maps,
  /// where the pass over them is too short for its memory, the bottom.
  FetchMeanwhile<T> fetch_image(ptrdiff_t n) const {
    const FusedStage &first = chain.stages[0], &last = chain.stages[chain.num_stages - 1];
    const ptrdiff_t top_pixels = static_cast<ptrdiff_t>(last.out_height) * last.out_width;
    if (!is_small<T>(top_pixels)) {
      const ptrdiff_t size = last.out_channels * top_pixels;
      return {top_diff + n * size, size, products};
    }
    if (!is_spatial(first)) return {};
    const ptrdiff_t size = static_cast<ptrdiff_t>(first.in_channels) * first.in_height * first.in_width;
    return {bottom + n * size, size, products};
  }

  /// Weights as the gradients to the inputs need them; called by all threads.
  void transpose_weights(const Shared<T>& shared, const SpatialScratch<T>& scratch, CommonJobs* jobs) const {
    jobs->run(static_cast<ptrdiff_t>(chain.num_stages) * chain.threads, [&](ptrdiff_t job) {
      const int s = static_cast<int>(job / chain.threads), slice = static_cast<int>(job % chain.threads);
      const FusedStage& stage = chain.stages[s];
      if (is_strided<T>(stage) || !wants_input(gradients, want, s)) return;
      const bool by_channel = is_direct<T>(stage) || is_packed<T>(stage) || !is_spatial(stage);
      const ptrdiff_t count = by_channel ? stage.in_channels : stage.group;
      const int first = static_cast<int>(count * slice / chain.threads);
      const int last = static_cast<int>(count * (slice + 1) / chain.threads);
      if (by_channel) {
        transpose_weight_rows(stage, parameters.weight[s], first, last, shared.transposed[s]);
      } else {
        transpose_spatial_weights(stage, parameters.weight[s], first, last, shared.transposed[s], scratch);
      }
    });
  }

  /// One part of the images, with this thread's scratch memory; the parameters' gradients go to `sums`.
  void run_part(const ImageParts& parts, int part, const Shared<T>& shared, Scratch<T> scratch,
                const Sums<T>& sums) const {
    const FusedStage &first = chain.stages[0], &last = chain.stages[chain.num_stages - 1];
    for (int s = 0; s < chain.num_stages; ++s) {
      scratch.weight_diff[s] = sums.weight[s];
      scratch.bias_diff[s] = sums.bias[s];
      fill(sums.weight[s], weight_count(chain.stages[s]), T(0));
      fill(sums.bias[s], chain.stages[s].out_channels, T(0));
    }
    for (ptrdiff_t n = parts.begin(part); n < parts.begin(part + 1); ++n) {
      Image<T> image = {chain, parameters, shared, scratch};
      const ptrdiff_t bottom_size = first.in_channels * image.bottom_pitch(), bottom_at = n * bottom_size;
      const bool last_one = n + 1 == parts.begin(part + 1);
      FetchMeanwhile<T> fetch = last_one ? FetchMeanwhile<T>() : fetch_image(n + 1);
      image.fetch = &fetch;
      image.rows = last.out_height;
      image.bottom_finish = finish;
      image.bottom = bottom + bottom_at;
      image.top_diff = top_diff + n * last.out_channels * image.top_pitch();
      backward_image(image, gradients, want, gradients.bottom ? gradients.bottom + bottom_at : nullptr);
    }
    for (int s = 0; s < chain.num_stages; ++s) {
      if (gradients.weight[s] && is_small_3x3<T>(chain.stages[s])) outputs_first(chain.stages[s], sums.weight[s]);
    }
    end_streams();
  }

  void add(const Sums<T>& part) const {
    for (int s = 0; s < chain.num_stages; ++s) {
      add_part(part.weight[s], weight_count(chain.stages[s]), gradients.weight[s]);
      add_part(part.bias[s], chain.stages[s].out_channels, gradients.bias[s]);
    }
  }
};

template <typename T>
void backward(const FusedChain& chain, const T* bottom, const FusedParameters<T>& parameters, const T* top_diff,
              const FusedGradients<T>& gradients, void* workspace) {
  const BackwardWorkspace<T> memory(chain);
  const ImageParts parts = memory.parts;
  const Shared<T> shared = memory.shared(workspace);
  const Wanted want = wanted(chain, gradients);
  const ChainBackward<T> pass = {chain,
                                 parameters,
                                 gradients,
                                 bottom,
                                 top_diff,
                                 want,
                                 bottom_finish(chain, bottom, gradients),
                                 weight_products(chain, gradients)};
  CommonJobs transposed = {};
  ptrdiff_t taken = chain.threads;
#pragma omp parallel num_threads(chain.threads)
  {
    const Scratch<T> scratch = memory.scratch(workspace, omp_get_thread_num());
    const auto run = [&](int part) { pass.run_part(parts, part, shared, scratch, memory.sums(workspace, part)); };
    pass.transpose_weights(shared, scratch.spatial, &transposed);
    for (int part = omp_get_thread_num(); part < chain.threads; part += omp_get_num_threads()) run(part);
    for (ptrdiff_t part; (part = take_job(&taken)) < parts.count();) run(static_cast<int>(part));
#pragma omp barrier
    for (int part = 0; part < parts.count(); ++part) pass.add(memory.sums(workspace, part));
  }
}

}  // namespace
}  // namespace caffe_layers
