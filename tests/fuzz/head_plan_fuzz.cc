// Head plan files, ours and the reference's: no crash, and what is taken comes back the same from
// our own format. The first byte picks the model's shape.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "kv/head_plan.h"
#include "kv/visible.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const rk::kv::KvShape shape{
      .num_layers = 1 + (data[0] & 3), .num_kv_heads = 1 + (data[0] >> 2 & 3), .head_dim = 64};
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto plan = rk::kv::HeadPlan::parse(text, "fuzz", shape, "model");
  if (!plan.ok()) {
    RK_CHECK(!plan.status().message().empty());
    return 0;
  }
  const auto again = rk::kv::HeadPlan::parse(plan->to_json(), "again", shape, "model");
  RK_CHECK_OK(again.status());
  RK_CHECK(again->digest() == plan->digest());
  const auto f = rk::kv::footprint(*plan, 1000, shape.head_dim, rk::DType::kF16, 16);
  RK_CHECK(f.head_aware_bytes <= f.dense_bytes && f.head_aware_rows <= f.dense_rows);
  return 0;
}
