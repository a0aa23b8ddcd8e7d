# The interface target caffe_cuda: CUDA's libraries, cuDNN and NCCL from the toolkit, the system, or the nvidia-* wheels
# below CUDA_WHEELS_DIR; and CAFFE_CUDA_FOLDERS, where they are.
find_package(CUDAToolkit 12 REQUIRED)

# The wheels hold versioned libraries only (libcublas.so.13), and no CMake files.
function(caffe_find_cuda_library name header library)
  file(GLOB wheels ${CUDA_WHEELS_DIR}/*)
  file(GLOB libraries ${CUDA_WHEELS_DIR}/*/lib/lib${library}.so.*)
  foreach(file IN LISTS libraries)
    get_filename_component(file ${file} NAME)
    list(APPEND names ${file})
  endforeach()
  find_path(${name}_INCLUDE_DIR ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS ${wheels} PATH_SUFFIXES include)
  find_library(${name}_LIBRARY NAMES ${library} ${names} HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS ${wheels}
               PATH_SUFFIXES lib lib64)
  mark_as_advanced(${name}_INCLUDE_DIR ${name}_LIBRARY)
  if(NOT ${name}_INCLUDE_DIR OR NOT ${name}_LIBRARY)
    message(FATAL_ERROR "${name} not found (header ${header}, library ${library}): install it with the CUDA toolkit or, "
                        "for CUDA ${CUDAToolkit_VERSION_MAJOR}, `pip install` its nvidia-* wheel "
                        "(cmake/cuda/libraries-${CUDAToolkit_VERSION_MAJOR}.txt)")
  endif()
  target_include_directories(caffe_cuda SYSTEM INTERFACE ${${name}_INCLUDE_DIR})
  target_link_libraries(caffe_cuda INTERFACE ${${name}_LIBRARY})
  get_filename_component(folder ${${name}_LIBRARY} DIRECTORY)
  list(APPEND CAFFE_CUDA_FOLDERS ${folder})
  set(CAFFE_CUDA_FOLDERS ${CAFFE_CUDA_FOLDERS} PARENT_SCOPE)
endfunction()

set(CAFFE_CUDA_FOLDERS ${CUDAToolkit_LIBRARY_DIR})
add_library(caffe_cuda INTERFACE)
target_link_libraries(caffe_cuda INTERFACE CUDA::cudart)
# Caffe includes thrust from .cpp files too.
target_include_directories(caffe_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_INCLUDE_DIRS}/cccl)
caffe_find_cuda_library(cuBLAS cublas_v2.h cublas)
caffe_find_cuda_library(cuRAND curand.h curand)
if(USE_CUDNN)
  caffe_find_cuda_library(cuDNN cudnn.h cudnn)
  target_compile_definitions(caffe_cuda INTERFACE USE_CUDNN)
endif()
if(USE_NCCL)
  caffe_find_cuda_library(NCCL nccl.h nccl)
  target_compile_definitions(caffe_cuda INTERFACE USE_NCCL)
endif()
list(REMOVE_DUPLICATES CAFFE_CUDA_FOLDERS)
