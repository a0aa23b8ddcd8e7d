# CPU_ONLY, USE_CUDNN and USE_NCCL, and with CUDA its compiler.
include(CheckLanguage)
include(CMakeDependentOption)

check_language(CUDA)
file(GLOB _gpu /dev/nvidia[0-9]*)
if(CMAKE_CUDA_COMPILER AND _gpu)
  set(_cpu_only OFF)
else()
  # Without a GPU a build with CUDA only takes longer, and needs CUDA's libraries to run.
  set(_cpu_only ON)
endif()
option(CPU_ONLY "Build without CUDA (default: ON unless a toolkit and a GPU are found)" ${_cpu_only})
cmake_dependent_option(USE_CUDNN "cuDNN 8 or 9" ON "NOT CPU_ONLY" OFF)
cmake_dependent_option(USE_NCCL "Several GPUs through NCCL" ON "NOT CPU_ONLY" OFF)

if(NOT CPU_ONLY)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "CPU_ONLY=OFF needs the CUDA toolkit, but nvcc was not found: put it on PATH, "
                        "set CMAKE_CUDA_COMPILER, or configure with -DCPU_ONLY=ON")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90 CACHE STRING "GPU generations, such as 90 for H100 and H200")
  set(CMAKE_CUDA_STANDARD 17)
  # libcaffe and the programs that link it share one.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
  # Device code takes a third of the space; the bundle carries it.
  string(APPEND CMAKE_CUDA_FLAGS " -Xfatbin=-compress-all")
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_path('purelib'))"
                  OUTPUT_VARIABLE _site_packages OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(CUDA_WHEELS_DIR ${_site_packages}/nvidia CACHE PATH "Where the nvidia-* wheels are unpacked")
endif()
