# CUDA is compiled where a toolkit of version 13 or newer is found, and left out with one line where
# not. RK_CUDA: AUTO (default), ON (its absence is an error), OFF. Sets RK_CUDA_VERSION, empty where
# there is none.
#
# Sources: *.cu and *_cuda.cc are built with CUDA only, *_nocuda.cc without it only. x_sm90.cu is for
# Hopper's own instructions (sm_90a); any other .cu for sm_80 and sm_90, with PTX for later cards.
set(RK_CUDA AUTO CACHE STRING "CUDA back end: AUTO, ON or OFF")
set_property(CACHE RK_CUDA PROPERTY STRINGS AUTO ON OFF)
set(RK_CUDA_VERSION "")
option(RK_RACECHECK "kernels wait in the form that compute-sanitizer's racecheck can follow (slower)" OFF)

if(NOT RK_CUDA STREQUAL "OFF")
  find_program(RK_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(RK_NVCC)
    execute_process(COMMAND ${RK_NVCC} --version OUTPUT_VARIABLE rk_nvcc_says ERROR_QUIET)
    if(rk_nvcc_says MATCHES "release ([0-9]+\\.[0-9]+)")
      set(RK_CUDA_VERSION ${CMAKE_MATCH_1})
    endif()
  endif()
  if(RK_CUDA_VERSION AND RK_CUDA_VERSION VERSION_LESS 13)
    set(rk_why "toolkit ${RK_CUDA_VERSION} is older than 13")
    set(RK_CUDA_VERSION "")
  elseif(NOT RK_CUDA_VERSION)
    set(rk_why "no toolkit (nvcc) found")
  endif()
endif()

if(RK_CUDA_VERSION)
  message(STATUS "CUDA: toolkit ${RK_CUDA_VERSION}")
  set(CMAKE_CUDA_COMPILER ${RK_NVCC})
  set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  set(CMAKE_CUDA_FLAGS_INIT "-gencode=arch=compute_90,code=sm_90")  # for cmake's own test of nvcc
  enable_language(CUDA)
  set(CMAKE_CUDA_FLAGS "")
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")  # CMake 3.25 does not know it
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  if(RK_RACECHECK)
    string(APPEND CMAKE_CUDA_FLAGS " -DRK_RACECHECK")
  endif()
  find_package(CUDAToolkit REQUIRED)
elseif(RK_CUDA STREQUAL "ON")
  message(FATAL_ERROR "CUDA: ${rk_why}, and RK_CUDA=ON asks for one")
elseif(RK_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: left out (RK_CUDA=OFF)")
else()
  message(STATUS "CUDA: left out, ${rk_why}")
endif()

# Which of a library's sources this build takes, and how nvcc compiles them.
function(rk_cuda_sources out)
  set(sources ${ARGN})
  if(RK_CUDA_VERSION)
    list(FILTER sources EXCLUDE REGEX "_nocuda\\.cc$")
    foreach(source ${sources})
      if(source MATCHES "_sm90\\.cu$")
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
                                    "-gencode=arch=compute_90a,code=sm_90a")
      elseif(source MATCHES "\\.cu$")
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
          "-gencode=arch=compute_80,code=sm_80;-gencode=arch=compute_90,code=[sm_90,compute_90]")
      endif()
    endforeach()
  else()
    list(FILTER sources EXCLUDE REGEX "(\\.cu|_cuda\\.cc|_cuda_test\\.cc)$")
  endif()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()
