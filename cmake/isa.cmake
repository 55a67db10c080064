# Instruction set flags belong to single source files, never to a target: the library starts on any
# x86-64 (or other) processor and chooses at run time.

string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" medusa_processor)
if(medusa_processor MATCHES "^(x86_64|amd64)$")
  set(MEDUSA_X86_64 ON)
else()
  set(MEDUSA_X86_64 OFF)
endif()

# medusa_isa_source(kernels_avx2.cc -mavx2 -mfma): adds the file to medusa_core with these flags.
# TARGET_DIRECTORY, because source properties otherwise hold in the calling folder only.
function(medusa_isa_source file)
  target_sources(medusa_core PRIVATE ${file})
  set_source_files_properties(${file} TARGET_DIRECTORY medusa_core PROPERTIES COMPILE_OPTIONS "${ARGN}")
endfunction()
