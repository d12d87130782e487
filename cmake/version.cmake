# Run at every build (cmake -P): writes OUT from IN with the commit, only when that changed.
execute_process(COMMAND git -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --match=NeVeR
                OUTPUT_VARIABLE RK_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT RK_COMMIT)
  set(RK_COMMIT unknown)
endif()
configure_file(${IN} ${OUT} @ONLY)
