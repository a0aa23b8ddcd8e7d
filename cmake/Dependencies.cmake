# The libraries Caffe needs, gathered in the interface target caffe_dependencies. Used by the build and, installed, by
# find_package(CaffeIGC). Reads USE_OPENCV, USE_HDF5, CPU_ONLY, USE_CUDNN, USE_NCCL.
function(caffe_require found what)
  if(NOT found)
    message(FATAL_ERROR "${what} not found: install the packages that system-packages.txt lists (`make build` does)")
  endif()
endfunction()

# find_package for libraries that bring no CMake files of their own: target NAME::NAME from a header and a library.
function(caffe_find_library name header library)
  cmake_parse_arguments(arg "" "" "SUFFIXES" ${ARGN})
  find_path(${name}_INCLUDE_DIR ${header} PATH_SUFFIXES ${arg_SUFFIXES})
  find_library(${name}_LIBRARY ${library} PATH_SUFFIXES ${arg_SUFFIXES})
  mark_as_advanced(${name}_INCLUDE_DIR ${name}_LIBRARY)
  if(NOT ${name}_INCLUDE_DIR OR NOT ${name}_LIBRARY)
    caffe_require(FALSE "${name} (header ${header}, library ${library})")
  endif()
  add_library(${name}::${name} INTERFACE IMPORTED GLOBAL)
  target_include_directories(${name}::${name} INTERFACE ${${name}_INCLUDE_DIR})
  target_link_libraries(${name}::${name} INTERFACE ${${name}_LIBRARY})
endfunction()

find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Boost 1.71 CONFIG QUIET COMPONENTS thread filesystem)
caffe_require("${Boost_FOUND}" "Boost 1.71 or newer (thread, filesystem)")
find_package(Protobuf QUIET)
caffe_require("${Protobuf_FOUND}" "Protobuf")
caffe_require("${Protobuf_PROTOC_EXECUTABLE}" "protoc")
caffe_find_library(gflags gflags/gflags.h gflags)
caffe_find_library(glog glog/logging.h glog)
caffe_find_library(LMDB lmdb.h lmdb)
caffe_find_library(OpenBLAS cblas.h openblas SUFFIXES openblas-openmp openblas openblas-pthread)

add_library(caffe_dependencies INTERFACE)
target_link_libraries(caffe_dependencies INTERFACE
  Boost::thread Boost::filesystem glog::glog gflags::gflags protobuf::libprotobuf LMDB::LMDB OpenBLAS::OpenBLAS
  Threads::Threads)
target_compile_definitions(caffe_dependencies INTERFACE USE_LMDB CAFFE_VERSION=1.0.0
  # Caffe uses boost as of its time.
  BOOST_BIND_GLOBAL_PLACEHOLDERS BOOST_ALLOW_DEPRECATED_HEADERS)

if(USE_OPENCV)
  # Debian's small packages ship no OpenCVConfig.cmake, and libopencv-dev is 500 MB more.
  foreach(module core imgproc imgcodecs)
    caffe_find_library(opencv_${module} opencv2/${module}.hpp opencv_${module} SUFFIXES opencv4)
    target_link_libraries(caffe_dependencies INTERFACE opencv_${module}::opencv_${module})
  endforeach()
  target_compile_definitions(caffe_dependencies INTERFACE USE_OPENCV)
endif()

if(USE_HDF5)
  find_package(HDF5 QUIET COMPONENTS C HL)
  caffe_require("${HDF5_FOUND}" "HDF5 (C and HL)")
  target_link_libraries(caffe_dependencies INTERFACE hdf5::hdf5 hdf5::hdf5_hl)
  target_compile_definitions(caffe_dependencies INTERFACE USE_HDF5)
endif()

if(CPU_ONLY)
  target_compile_definitions(caffe_dependencies INTERFACE CPU_ONLY)
else()
  include(${CMAKE_CURRENT_LIST_DIR}/CudaLibraries.cmake)
  target_link_libraries(caffe_dependencies INTERFACE caffe_cuda)
endif()
