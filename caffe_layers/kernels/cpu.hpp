#pragma once

namespace caffe_layers {

// Whether this machine has what the kernels of an instruction set are compiled for.
bool any_cpu();
bool cpu_has_avx2();    ///< with FMA
bool cpu_has_avx512();  ///< F, BW, DQ and VL

}  // namespace caffe_layers
