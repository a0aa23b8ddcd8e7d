# libcaffe (shared: a static one would drop layers that only register themselves): Caffe's sources and caffe_layers/.
include(CaffeSources)

file(GLOB _files RELATIVE ${CAFFE_SOURCE} ${CAFFE_SOURCE}/src/caffe/*.cpp ${CAFFE_SOURCE}/src/caffe/layers/*.cpp
     ${CAFFE_SOURCE}/src/caffe/solvers/*.cpp ${CAFFE_SOURCE}/src/caffe/util/*.cpp)
caffe_sources(libcaffe BATCH 12 FILES ${_files})

set(CAFFE_LAYERS_DIR ${PROJECT_SOURCE_DIR}/caffe_layers)
file(GLOB _our_files CONFIGURE_DEPENDS ${CAFFE_LAYERS_DIR}/layers/*.cpp ${CAFFE_LAYERS_DIR}/kernels/*.cpp)
# Kernels for newer CPUs are picked at run time; everything else runs on any x86-64.
foreach(file IN LISTS _our_files)
  if(file MATCHES "_avx2\\.cpp$")
    set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
  elseif(file MATCHES "_avx512\\.cpp$")
    set_source_files_properties(${file} PROPERTIES
      COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma")
  endif()
endforeach()

add_library(caffe SHARED ${libcaffe} ${CAFFE_PROTO_SOURCE} ${_our_files})
add_dependencies(caffe caffe_proto)
set_target_properties(caffe PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
target_include_directories(caffe
  BEFORE PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cmake/compat/include>
  PUBLIC $<BUILD_INTERFACE:${CAFFE_LAYERS_DIR}/include>
         $<BUILD_INTERFACE:${CAFFE_INCLUDE_DIR}>
         $<BUILD_INTERFACE:${CAFFE_SOURCE}/include>
         $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  PRIVATE ${CAFFE_SOURCE})
target_link_libraries(caffe PUBLIC caffe_dependencies PRIVATE OpenMP::OpenMP_CXX)
# Caffe's own code is not ours to tidy up.
set_source_files_properties(${libcaffe} PROPERTIES COMPILE_OPTIONS "-w")
