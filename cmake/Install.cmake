# `cmake --install`: library, tools, headers and the package CaffeIGC for find_package.
# `pip install` (scikit-build) takes the component `python` instead: the package `caffe`, with libcaffe inside, and the
# tools beside Python's other scripts.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/CaffeIGC)
install(TARGETS caffe EXPORT CaffeIGCTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS ${CAFFE_TOOLS})
install(DIRECTORY ${CAFFE_SOURCE}/include/caffe ${CAFFE_INCLUDE_DIR}/caffe ${CAFFE_LAYERS_DIR}/include/caffe_layers
        TYPE INCLUDE FILES_MATCHING PATTERN *.hpp PATTERN *.pb.h PATTERN *.proto PATTERN test EXCLUDE)
install(DIRECTORY ${CAFFE_LAYERS_DIR}/kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/caffe_layers
        FILES_MATCHING PATTERN *.hpp)
install(EXPORT CaffeIGCTargets NAMESPACE CaffeIGC:: DESTINATION ${_package})
configure_package_config_file(cmake/CaffeIGCConfig.cmake.in ${CAFFE_BUILD_DIR}/CaffeIGCConfig.cmake
                              INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${CAFFE_BUILD_DIR}/CaffeIGCConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CAFFE_BUILD_DIR}/CaffeIGCConfig.cmake ${CAFFE_BUILD_DIR}/CaffeIGCConfigVersion.cmake
              cmake/Dependencies.cmake cmake/CudaLibraries.cmake
        DESTINATION ${_package})

if(BUILD_PYCAFFE)
  # What pip builds: everything but the tests.
  add_custom_target(python_package DEPENDS caffe ${CAFFE_TOOLS} pycaffe)
endif()
if(SKBUILD)
  set(_python COMPONENT python EXCLUDE_FROM_ALL)
  install(TARGETS pycaffe DESTINATION ${SKBUILD_PLATLIB_DIR}/caffe ${_python})
  install(TARGETS caffe LIBRARY DESTINATION ${SKBUILD_PLATLIB_DIR}/caffe/lib NAMELINK_SKIP ${_python})
  install(TARGETS ${CAFFE_TOOLS} DESTINATION ${SKBUILD_SCRIPTS_DIR} ${_python})
  install(DIRECTORY ${CAFFE_PYTHON_DIR}/caffe DESTINATION ${SKBUILD_PLATLIB_DIR} ${_python}
          FILES_MATCHING PATTERN *.py)
  # What this Caffe is made of, as sha256sum prints it: experiments/machine.py compares it with the checkout.
  file(GLOB_RECURSE _layers RELATIVE ${PROJECT_SOURCE_DIR}
       ${CAFFE_LAYERS_DIR}/*.cpp ${CAFFE_LAYERS_DIR}/*.hpp ${CAFFE_LAYERS_DIR}/*.cu ${CAFFE_LAYERS_DIR}/*.cuh
       ${CAFFE_LAYERS_DIR}/*.proto)
  set(_sums "")
  foreach(_file IN LISTS _layers)
    file(SHA256 ${PROJECT_SOURCE_DIR}/${_file} _sum)
    string(APPEND _sums "${_sum}  ${_file}\n")
  endforeach()
  file(WRITE ${CAFFE_BUILD_DIR}/layers.sha256 "${_sums}")
  install(FILES ${CAFFE_BUILD_DIR}/layers.sha256 DESTINATION ${SKBUILD_PLATLIB_DIR}/caffe ${_python})
endif()
