#include <gflags/gflags.h>
#include <omp.h>

#include <cstdio>

// A flag of every program that parses its flags with gflags, as `caffe` does.
DEFINE_int32(threads, 0,
             "Optional; threads of all CPU layers and of OpenBLAS. 0: as OMP_NUM_THREADS says, else one per core.");

namespace {

/// gflags calls it with every new value, and with the default one.
bool UseThreads(const char*, google::int32 threads) {
  if (threads > 0) omp_set_num_threads(threads);
  if (threads < 0) fprintf(stderr, "--threads is %d: must be 1 or more, or 0\n", threads);
  return threads >= 0;
}

const bool kRegistered = google::RegisterFlagValidator(&FLAGS_threads, UseThreads);

}  // namespace
