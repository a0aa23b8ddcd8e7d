# libcaffe (shared: a static one would drop layers that only register themselves): Caffe's sources and caffe_layers/.
include(CaffeSources)

set(_folders src/caffe src/caffe/layers src/caffe/solvers src/caffe/util)
set(CAFFE_LAYERS_DIR ${PROJECT_SOURCE_DIR}/caffe_layers)
set(_libcaffe)
foreach(extension cpp cu)
  if(CPU_ONLY AND extension STREQUAL cu)
    continue()
  endif()
  list(TRANSFORM _folders PREPEND ${CAFFE_SOURCE}/ OUTPUT_VARIABLE _globs)
  list(TRANSFORM _globs APPEND /*.${extension})
  file(GLOB _files RELATIVE ${CAFFE_SOURCE} ${_globs})
  caffe_sources(libcaffe EXTENSION ${extension} BATCH 12 FILES ${_files})
  file(GLOB _our_files CONFIGURE_DEPENDS ${CAFFE_LAYERS_DIR}/*.${extension} ${CAFFE_LAYERS_DIR}/layers/*.${extension}
       ${CAFFE_LAYERS_DIR}/solvers/*.${extension} ${CAFFE_LAYERS_DIR}/kernels/*.${extension})
  list(APPEND _libcaffe ${libcaffe} ${_our_files})
endforeach()

# Kernels for newer CPUs are picked at run time; everything else runs on any x86-64.
foreach(file IN LISTS _libcaffe)
  if(file MATCHES "_avx2\\.cpp$")
    set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  elseif(file MATCHES "_avx512\\.cpp$")
    set_source_files_properties(${file} PROPERTIES
      COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma")
  endif()
endforeach()

# Of the folders with libraries that it links, CMake tells installed programs only those outside the project; the virtual
# environment and the compiler of `make GPU=1` are inside.
list(APPEND CMAKE_INSTALL_RPATH ${CAFFE_CUDA_FOLDERS})

add_library(caffe SHARED ${_libcaffe} ${CAFFE_PROTO_SOURCE} ${PROJECT_SOURCE_DIR}/cmake/compat/openblas_core.cpp)
add_library(CaffeIGC::caffe ALIAS caffe)
add_dependencies(caffe caffe_proto)
set_target_properties(caffe PROPERTIES SOVERSION ${PROJECT_VERSION_MAJOR})
target_include_directories(caffe
  PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cmake/compat/include>
         $<BUILD_INTERFACE:${CAFFE_LAYERS_DIR}/include>
         $<BUILD_INTERFACE:${CAFFE_INCLUDE_DIR}>
         $<BUILD_INTERFACE:${CAFFE_SOURCE}/include>
         $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  PRIVATE ${CAFFE_SOURCE})
# Installed, the same name means what CaffeIGCConfig.cmake makes anew.
target_link_libraries(caffe
  PUBLIC $<BUILD_INTERFACE:caffe_dependencies> $<INSTALL_INTERFACE:CaffeIGC::caffe_dependencies>
  PRIVATE OpenMP::OpenMP_CXX)
