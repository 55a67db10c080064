# MEDUSA_HAS_CUDA: whether nvcc and the static CUDA runtime are here, and wanted. Only this file and
# csrc/backend/cuda/CMakeLists.txt know; the code links one back end or its absence.

set(MEDUSA_CUDA AUTO CACHE STRING "Build the CUDA back end: AUTO (where nvcc is found), ON or OFF")
set_property(CACHE MEDUSA_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MEDUSA_HAS_CUDA OFF)

# Code for A100 and H100/H200, and PTX that later devices compile for themselves.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES "80;90a-real")
endif()

set(medusa_cuda_wanted OFF)
if(MEDUSA_CUDA STREQUAL "ON")
  set(medusa_cuda_wanted ON)
elseif(MEDUSA_CUDA STREQUAL "AUTO" AND NOT MEDUSA_SANITIZE)
  if(CMAKE_VERSION VERSION_LESS 3.25)
    message(STATUS "CUDA back end: expected CMake 3.25 or later, found ${CMAKE_VERSION}")
  else()
    set(medusa_cuda_wanted ON)
  endif()
endif()

if(medusa_cuda_wanted)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    if(MEDUSA_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER "${MEDUSA_CCACHE}")
    endif()
    list(PREPEND CMAKE_CUDA_COMPILER_LAUNCHER "${CMAKE_CURRENT_LIST_DIR}/keep_ptxas_report.sh")
    enable_language(CUDA)
    # CMake before 3.25.2 does not know that nvcc 12 and later speak C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    find_package(CUDAToolkit)
    if(TARGET CUDA::cudart_static)
      set(MEDUSA_HAS_CUDA ON)
    endif()
  endif()
  if(MEDUSA_CUDA STREQUAL "ON" AND NOT MEDUSA_HAS_CUDA)
    message(FATAL_ERROR "MEDUSA_CUDA=ON: expected nvcc and libcudart_static.a of a CUDA toolkit, found "
                        "nvcc: ${CMAKE_CUDA_COMPILER}, toolkit: ${CUDAToolkit_LIBRARY_DIR}")
  endif()
endif()
message(STATUS "CUDA back end: ${MEDUSA_HAS_CUDA} (MEDUSA_CUDA=${MEDUSA_CUDA})")

# What kernels are compiled with. No contraction: every instantiation of a kernel rounds alike, fused
# steps are written out. A kernel whose registers spill does not compile.
function(medusa_cuda_defaults target)
  target_compile_options(
    ${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-fmad=false;-Xptxas=-v,-warn-spills,-Werror>")
  if(MEDUSA_WERROR)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
  endif()
endfunction()
