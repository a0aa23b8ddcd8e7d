# caffe_sources(RESULT EXTENSION cpp|cu BATCH n FILES paths...): Caffe's files, given relative to its root, as sources of a
# target. A file of the same path below cmake/compat stands in for Caffe's (and includes it); the rest is compiled in
# batches of n (a unity build: a third of the time). CMake's own UNITY_BUILD would write absolute paths, which no two
# checkouts could share through ccache.
function(caffe_sources result)
  cmake_parse_arguments(arg "" "EXTENSION;BATCH" "FILES" ${ARGN})
  set(sources)
  set(rest)
  foreach(file IN LISTS arg_FILES)
    if(EXISTS ${PROJECT_SOURCE_DIR}/cmake/compat/${file})
      list(APPEND sources ${PROJECT_SOURCE_DIR}/cmake/compat/${file})
    else()
      list(APPEND rest ${file})
    endif()
  endforeach()
  list(LENGTH rest count)
  math(EXPR last "${count} - 1")
  foreach(first RANGE 0 ${last} ${arg_BATCH})
    list(SUBLIST rest ${first} ${arg_BATCH} batch)
    list(TRANSFORM batch REPLACE "(.+)" "#include \"\\1\"\n")
    list(JOIN batch "" text)
    set(unity ${CAFFE_BUILD_DIR}/unity/${result}_${first}.${arg_EXTENSION})
    file(CONFIGURE OUTPUT ${unity} CONTENT "${text}" @ONLY)
    list(APPEND sources ${unity})
  endforeach()
  # Caffe's own code is not ours to tidy up.
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "-w")
  set(${result} ${sources} PARENT_SCOPE)
endfunction()
