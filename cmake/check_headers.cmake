# Target check_headers: every header of src/ compiles alone, as the first include of its own file.
# x_body.h is code that variants of a kernel compile several times, no header.
file(GLOB_RECURSE rk_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/src
     ${PROJECT_SOURCE_DIR}/src/*.h)
list(FILTER rk_headers EXCLUDE REGEX "_body\\.h$")
set(rk_header_units "")
foreach(header ${rk_headers})
  string(REPLACE "/" "_" name ${header})
  set(unit ${CMAKE_BINARY_DIR}/check_headers/${name}.cc)
  file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${header}\"\n")
  list(APPEND rk_header_units ${unit})
  # Private headers of a kernel are for files with an instruction set; its public one, x/x.h, is not.
  get_filename_component(rk_stem ${header} NAME_WE)
  if(header MATCHES "^kernels/[^/]+/" AND NOT header MATCHES "/${rk_stem}/${rk_stem}\\.h$")
    set_source_files_properties(${unit} PROPERTIES COMPILE_OPTIONS "${RK_ISA_bf16}")
  endif()
endforeach()
add_library(check_headers OBJECT EXCLUDE_FROM_ALL ${rk_header_units})
target_link_libraries(check_headers PRIVATE rk_flags)
