// What is said where cuBLASLt is missing or another version. Needs no card.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/gemm/cublas_lt.h"

namespace rk::kernels {
namespace {

using testing::HasSubstr;

TEST(CublasLt, AMissingLibraryIsNamedWithWhereAndHow) {
  const Status status = check_cublas_lt("libcublasLt.so.13.missing");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  for (const char* text :
       {"libcublasLt.so.13.missing not found", "the loader's path", "/usr/local/cuda/lib64",
        "libcublas-13-0", "LD_LIBRARY_PATH", "--device cpu"}) {
    EXPECT_THAT(status.message(), HasSubstr(text));
  }
}

TEST(CublasLt, ALibraryWithoutItsFunctionsIsNamed) {
  const Status status = check_cublas_lt("libc.so.6");
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("libc.so.6 lacks a function"));
  EXPECT_THAT(status.message(), HasSubstr("cublasLtCreate"));
}

}  // namespace
}  // namespace rk::kernels
