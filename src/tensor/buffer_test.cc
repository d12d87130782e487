#include "tensor/buffer.h"

#include <gtest/gtest.h>

#include <cstring>

namespace rk {
namespace {

TEST(Buffer, IsZeroedAlignedAndMoves) {
  for (const int64_t bytes : {int64_t{1}, int64_t{1000}, int64_t{1} << 20}) {
    auto made = Buffer::allocate(bytes);
    ASSERT_TRUE(made.ok());
    Buffer a = std::move(made).value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0U);
    EXPECT_EQ(a.as<char>()[bytes - 1], 0);
    a.as<char>()[0] = 5;
    const Buffer b = std::move(a);
    EXPECT_EQ(b.as<char>()[0], 5);
    EXPECT_EQ(b.num_bytes(), bytes);
  }
  EXPECT_EQ(Buffer::allocate(0)->data(), nullptr);
}

TEST(Buffer, RefusesTheImpossible) {
  EXPECT_EQ(Buffer::allocate(-1).code(), Code::kInvalidArgument);
  EXPECT_EQ(Buffer::allocate(int64_t{1} << 62).code(), Code::kExhausted);
}

TEST(Buffer, ReleasedPagesReadAsZerosAndNeighboursStay) {
  for (const int64_t bytes : {int64_t{20000}, (int64_t{1} << 20) + 77}) {
    auto buffer = Buffer::allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    char* p = buffer->as<char>();
    for (const auto& [begin, end] :
         {std::pair<int64_t, int64_t>{100, 19000}, {5000, bytes}, {7, 9}}) {
      std::memset(p, 1, static_cast<size_t>(bytes));
      buffer->release_pages(begin, end - begin);
      for (int64_t i = 0; i < bytes; ++i) {
        ASSERT_EQ(p[i], i >= begin && i < end ? 0 : 1) << "byte " << i << " of " << bytes;
      }
    }
  }
}

TEST(Buffer, ReservationsCostNothingUntilTouched) {
  const int64_t before = peak_resident_bytes();
  ASSERT_TRUE(Buffer::allocate(int64_t{64} << 30).ok());
  EXPECT_LT(peak_resident_bytes() - before, int64_t{16} << 20);
  EXPECT_GT(available_memory_bytes(), 0);
}

}  // namespace
}  // namespace rk
