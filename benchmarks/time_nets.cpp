// Times nets in our Caffe, forward and backward, beside a copy: what bench_gpu.py runs.
//
// time_nets DEVICE SECONDS NET.prototxt...   DEVICE: number of a GPU, or -1 for the CPU
//
// Each net begins with an Input layer. One line of JSON per net: milliseconds of a forward pass, a backward pass, and a
// copy of as many bytes as the mean of the net's input and output has, each the fastest of several turns, a turn being
// many passes in a row between two CUDA events (caffe::Timer).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <random>
#include <string>

#include "caffe/caffe.hpp"
#include "caffe/util/benchmark.hpp"

namespace {

constexpr int kTurns = 5;

void fill_random(int count, float* values) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate_n(values, count, [&] { return normal(random); });
}

/// Milliseconds of one call, when as many are made in a row as fill a turn.
double fastest(double seconds, const std::function<void()>& call) {
  for (int i = 0; i < 3; ++i) call();  // memory is allocated, kernels are loaded
  const auto milliseconds_of = [&call](int calls) {
    caffe::Timer timer;
    timer.Start();
    for (int i = 0; i < calls; ++i) call();
    timer.Stop();
    return timer.MicroSeconds() / 1000.;
  };
  const double one = std::max(milliseconds_of(3) / 3, 1e-3);
  const int calls = std::max(1, static_cast<int>(std::ceil(1000 * seconds / kTurns / one)));
  double best = 1e30;
  for (int turn = 0; turn < kTurns; ++turn) best = std::min(best, milliseconds_of(calls) / calls);
  return best;
}

/// Source and target of the copy.
class Copy {
 public:
  explicit Copy(size_t bytes) : bytes_(bytes), from_(bytes), to_(bytes) {}
  void operator()() {
#ifndef CPU_ONLY
    if (caffe::Caffe::mode() == caffe::Caffe::GPU) {
      CUDA_CHECK(cudaMemcpyAsync(to_.mutable_gpu_data(), from_.gpu_data(), bytes_, cudaMemcpyDeviceToDevice, 0));
      return;
    }
#endif
    std::memcpy(to_.mutable_cpu_data(), from_.cpu_data(), bytes_);
  }

 private:
  size_t bytes_;
  caffe::SyncedMemory from_, to_;
};

void time_net(const std::string& path, double seconds) {
  caffe::Net<float> net(path, caffe::TRAIN);
  const int last = static_cast<int>(net.layers().size()) - 1;
  caffe::Blob<float>* bottom = net.top_vecs()[0][0];
  caffe::Blob<float>* top = net.output_blobs()[0];
  fill_random(bottom->count(), bottom->mutable_cpu_data());
  net.ForwardFromTo(1, last);
  fill_random(top->count(), top->mutable_cpu_diff());
  Copy copy((bottom->count() + top->count()) / 2 * sizeof(float));
  const double forward = fastest(seconds, [&] { net.ForwardFromTo(1, last); });
  const double backward = fastest(seconds, [&] { net.BackwardFromTo(last, 1); });
  const double copied = fastest(seconds, [&] { copy(); });
  std::printf("{\"net\": \"%s\", \"forward\": %.5f, \"backward\": %.5f, \"copy\": %.5f, \"bytes\": %d}\n",
              net.name().c_str(), forward, backward, copied, bottom->count() * 4 + top->count() * 4);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: time_nets DEVICE SECONDS NET.prototxt...\n";
    return 2;
  }
  FLAGS_minloglevel = google::WARNING;
  google::InitGoogleLogging(argv[0]);
  const int device = std::atoi(argv[1]);
  if (device >= 0) caffe::Caffe::SetDevice(device);
  caffe::Caffe::set_mode(device >= 0 ? caffe::Caffe::GPU : caffe::Caffe::CPU);
  for (int i = 3; i < argc; ++i) time_net(argv[i], std::atof(argv[2]));
  return 0;
}
