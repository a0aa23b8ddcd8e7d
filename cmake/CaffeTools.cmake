# Caffe's command line tools: the target of `foo` is foo_tool, since the target `caffe` is the library.
set(_names caffe compute_image_mean convert_imageset extract_features upgrade_net_proto_binary upgrade_net_proto_text
    upgrade_solver_proto_text)
set(CAFFE_TOOLS)
# Installed, bin/foo finds libcaffe in lib/ or inside the Python package, of pip's layout or Debian's.
set(_python lib/python${Python_VERSION_MAJOR}.${Python_VERSION_MINOR})
set(_rpath $ORIGIN/../lib $ORIGIN/../${_python}/site-packages/caffe/lib $ORIGIN/../${_python}/dist-packages/caffe/lib)
foreach(name IN LISTS _names)
  add_executable(${name}_tool ${CAFFE_SOURCE}/tools/${name}.cpp)
  set_target_properties(${name}_tool PROPERTIES OUTPUT_NAME ${name} INSTALL_RPATH "${_rpath};${CMAKE_INSTALL_RPATH}")
  target_compile_options(${name}_tool PRIVATE -w)
  target_link_libraries(${name}_tool PRIVATE caffe)
  list(APPEND CAFFE_TOOLS ${name}_tool)
endforeach()

# What benchmarks/bench_gpu.py runs.
add_executable(time_nets ${PROJECT_SOURCE_DIR}/benchmarks/time_nets.cpp)
target_link_libraries(time_nets PRIVATE caffe)
