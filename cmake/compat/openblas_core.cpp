// Before 0.3.22 OpenBLAS takes recent Xeons for a Prescott of 2004 and uses SSE3 kernels, 4 to 7 times slower than the
// CPU allows. When libcaffe is loaded, a core that is far too old is replaced by the one that fits the CPU; whoever
// sets OPENBLAS_CORETYPE keeps what they chose.
#include <cblas.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

// Exported by an OpenBLAS built for several cores (DYNAMIC_ARCH, as distributions do).
extern "C" {
void gotoblas_dynamic_init(void) __attribute__((weak));
void gotoblas_dynamic_quit(void) __attribute__((weak));
}

namespace {

bool IsOld(const char* core) {
  for (const char* old :
       {"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Sandybridge", "Generic", "Unknown"}) {
    if (strcasecmp(core, old) == 0) return true;
  }
  return false;
}

const char* CoreOfThisCpu() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return "SkylakeX";
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : nullptr;
}

__attribute__((constructor)) void UseCoreOfThisCpu() {
  const char* core = CoreOfThisCpu();
  if (core == nullptr || getenv("OPENBLAS_CORETYPE") != nullptr || !IsOld(openblas_get_corename())) return;
  if (gotoblas_dynamic_init != nullptr && gotoblas_dynamic_quit != nullptr) {
    // It asks the environment again, and only then the CPU.
    setenv("OPENBLAS_CORETYPE", core, 1);
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    unsetenv("OPENBLAS_CORETYPE");
  }
  if (IsOld(openblas_get_corename())) {
    fprintf(stderr, "caffe: OpenBLAS uses its %s kernels, several times slower than this CPU allows: set %s=%s\n",
            openblas_get_corename(), "OPENBLAS_CORETYPE", core);
  }
}

}  // namespace
