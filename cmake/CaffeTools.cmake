# Caffe's command line tools.
set(CAFFE_TOOLS caffe compute_image_mean convert_imageset extract_features upgrade_net_proto_binary
    upgrade_net_proto_text upgrade_solver_proto_text)
foreach(tool IN LISTS CAFFE_TOOLS)
  # The target `caffe` is the library.
  add_executable(${tool}_tool ${CAFFE_SOURCE}/tools/${tool}.cpp)
  set_target_properties(${tool}_tool PROPERTIES OUTPUT_NAME ${tool})
  target_compile_options(${tool}_tool PRIVATE -w)
  target_link_libraries(${tool}_tool PRIVATE caffe)
endforeach()
