# What a user may choose, and the settings that hold for every target.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()

option(USE_OPENCV "Image input (convert_imageset, ImageData) through OpenCV" ON)
option(USE_HDF5 "HDF5 weights, snapshots and layers" ON)
option(BUILD_PYCAFFE "The Python interface" ON)
option(BUILD_TESTING "Caffe's own tests and ours" ON)
option(USE_CCACHE "Compile through ccache when it is installed" ON)

set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Installed programs find libraries outside the system's folders, such as CUDA's wheels.
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG" CACHE STRING "Flags of a Release build")

# Relative relocations as a bitmap: a tenth of caffe_test.
include(CheckLinkerFlag)
check_linker_flag(CXX -Wl,-z,pack-relative-relocs PACKS_RELATIVE_RELOCS)
if(PACKS_RELATIVE_RELOCS)
  add_link_options(-Wl,-z,pack-relative-relocs)
endif()

# Everything that is built lies in <build>/caffe.
set(CAFFE_BUILD_DIR ${CMAKE_BINARY_DIR}/caffe)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CAFFE_BUILD_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CAFFE_BUILD_DIR}/lib)
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CAFFE_BUILD_DIR}/lib)

find_program(CCACHE_PROGRAM ccache)
mark_as_advanced(CCACHE_PROGRAM)
if(USE_CCACHE AND CCACHE_PROGRAM)
  # Paths below the source folder are taken as relative, so that all checkouts share one cache.
  foreach(language C CXX CUDA)
    set(CMAKE_${language}_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
  endforeach()
endif()
