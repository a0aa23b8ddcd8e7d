# caffe_test: Caffe's own suite. caffe_layers_test: ours.
add_library(caffe_gtest STATIC ${CAFFE_SOURCE}/src/gtest/gtest-all.cpp)
target_include_directories(caffe_gtest PUBLIC ${CAFFE_SOURCE}/src)
target_compile_options(caffe_gtest PRIVATE -w)
target_link_libraries(caffe_gtest PUBLIC Threads::Threads)

set(_main src/caffe/test/test_caffe_main.cpp)
file(GLOB _files RELATIVE ${CAFFE_SOURCE} ${CAFFE_SOURCE}/src/caffe/test/test_*.cpp)
caffe_sources(caffe_tests BATCH 6 FILES ${_files})
add_executable(caffe_test ${caffe_tests})
target_include_directories(caffe_test PRIVATE ${CAFFE_SOURCE})
target_compile_options(caffe_test PRIVATE -w)
target_link_libraries(caffe_test PRIVATE caffe caffe_gtest)

file(GLOB _our_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/layers/*.cpp)
if(_our_tests)
  add_executable(caffe_layers_test ${_our_tests} ${CAFFE_SOURCE}/${_main})
  target_link_libraries(caffe_layers_test PRIVATE caffe caffe_gtest OpenMP::OpenMP_CXX)
endif()
