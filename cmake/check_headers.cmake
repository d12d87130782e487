# Target check_headers: every header of src/ compiles alone, as the first include of its own file.
file(GLOB_RECURSE rk_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/src
     ${PROJECT_SOURCE_DIR}/src/*.h)
set(rk_header_units "")
foreach(header ${rk_headers})
  string(REPLACE "/" "_" name ${header})
  set(unit ${CMAKE_BINARY_DIR}/check_headers/${name}.cc)
  file(CONFIGURE OUTPUT ${unit} CONTENT "#include \"${header}\"\n")
  list(APPEND rk_header_units ${unit})
endforeach()
add_library(check_headers OBJECT EXCLUDE_FROM_ALL ${rk_header_units})
target_link_libraries(check_headers PRIVATE rk_flags)
