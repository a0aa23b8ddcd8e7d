# Sets CAFFE_SOURCE_DIR: the given BVLC checkout, or the pinned sdist, fetched by pip into the build folder.
set(CAFFE_SOURCE_DIR "" CACHE PATH "A checkout of BVLC/caffe to build instead of the pinned source")

find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)

# A disk that fills up in the middle fails in many odd ways; a build with its tests takes 650 MB.
execute_process(COMMAND ${Python_EXECUTABLE} -c "import shutil; print(shutil.disk_usage('.').free >> 20)"
                WORKING_DIRECTORY ${CMAKE_BINARY_DIR} OUTPUT_VARIABLE _free OUTPUT_STRIP_TRAILING_WHITESPACE)
if(_free LESS 650 AND NOT EXISTS ${CAFFE_BUILD_DIR}/bin/caffe)
  message(FATAL_ERROR "The disk of ${CMAKE_BINARY_DIR} has ${_free} MB left, and the build takes 650 MB: make room, or "
                      "choose another build folder, and run again")
endif()

function(_caffe_fetch archive sha256)
  get_filename_component(download_dir ${archive} DIRECTORY)
  message(STATUS "Fetching Caffe's source into ${download_dir}")
  execute_process(
    COMMAND ${Python_EXECUTABLE} -m pip download --quiet --no-deps --no-binary :all: --require-hashes
            --requirement ${PROJECT_SOURCE_DIR}/cmake/caffe-source.txt --dest ${download_dir}
    RESULT_VARIABLE status ERROR_VARIABLE log OUTPUT_VARIABLE log)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "Caffe's source could not be fetched. Check the network (or the proxy settings of pip) and run "
                        "again, or put the file there yourself: ${archive} (sha256 ${sha256}). pip says:\n${log}")
  endif()
endfunction()

function(_caffe_fetch_and_unpack result)
  file(STRINGS ${PROJECT_SOURCE_DIR}/cmake/caffe-source.txt pin REGEX "^[^#]")
  if(NOT pin MATCHES "^brocolli-caffe==([0-9.]+) --hash=sha256:([0-9a-f]+)$")
    message(FATAL_ERROR "cmake/caffe-source.txt: cannot read '${pin}'")
  endif()
  set(name brocolli-caffe-${CMAKE_MATCH_1})
  set(sha256 ${CMAKE_MATCH_2})
  set(archive ${CMAKE_BINARY_DIR}/download/${name}.tar.gz)
  if(NOT EXISTS ${archive})
    _caffe_fetch(${archive} ${sha256})
  endif()
  file(SHA256 ${archive} actual)
  if(NOT actual STREQUAL sha256)
    file(REMOVE ${archive})
    message(FATAL_ERROR "${archive} has the sha256 ${actual}, but ${sha256} is expected: the download is damaged. "
                        "It was removed; run again to fetch it anew.")
  endif()
  set(source ${CMAKE_BINARY_DIR}/source/${name})
  if(NOT EXISTS ${source}/.complete)
    file(REMOVE_RECURSE ${source})
    file(ARCHIVE_EXTRACT INPUT ${archive} DESTINATION ${CMAKE_BINARY_DIR}/source)
    file(TOUCH ${source}/.complete)
  endif()
  set(${result} ${source} PARENT_SCOPE)
endfunction()

if(CAFFE_SOURCE_DIR)
  if(NOT EXISTS ${CAFFE_SOURCE_DIR}/src/caffe/net.cpp)
    message(FATAL_ERROR "CAFFE_SOURCE_DIR=${CAFFE_SOURCE_DIR} is no Caffe source: src/caffe/net.cpp is not there")
  endif()
  set(CAFFE_SOURCE ${CAFFE_SOURCE_DIR})
else()
  _caffe_fetch_and_unpack(CAFFE_SOURCE)
endif()
