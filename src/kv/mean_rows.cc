#include "kv/mean_rows.h"

#include <algorithm>

#include "base/check.h"

namespace rk::kv {
namespace {

float load(const View& page, int64_t i) {
  if (page.dtype == DType::kF32) return page.ptr<float>()[i];
  const uint16_t bits = page.ptr<uint16_t>()[i];
  return page.dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void store(const View& page, int64_t i, float value) {
  if (page.dtype == DType::kF32) {
    page.ptr<float>()[i] = value;
  } else {
    page.ptr<uint16_t>()[i] = page.dtype == DType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
  }
}

void mean_page(std::span<const View> from, const View& to) {
  const float share = 1.0F / static_cast<float>(from.size());
  const int64_t size = to.num_elements();
  for (int64_t i = 0; i < size; ++i) {
    float sum = 0;
    for (const View& page : from) sum += load(page, i);
    store(to, i, sum * share);
  }
}

}  // namespace

Result<std::shared_ptr<const FrameRows>> mean_rows(
    PagePool& pool, std::span<const std::shared_ptr<const FrameRows>> rows) {
  RK_CHECK(!rows.empty());
  if (pool.memory() != Memory::kHost) {
    return unimplemented("mean over contexts: rows on a card cannot be averaged yet");
  }
  const FrameRows& first = *rows[0];
  for (const auto& other : rows) {
    RK_CHECK(other->row_begin() == 0 && other->row_end() == first.row_end());
    RK_CHECK(other->num_heads() == first.num_heads());
  }
  std::vector<PageId> got;
  RK_RETURN_IF_ERROR(pool.allocate(first.num_pages(), got));
  std::vector<std::vector<PageId>> pages(static_cast<size_t>(first.num_heads()));
  std::vector<View> k(rows.size()), v(rows.size());
  auto next = got.begin();
  for (int h = 0; h < first.num_heads(); ++h) {
    const size_t count = first.pages(h).size();
    auto& to = pages[static_cast<size_t>(h)];
    to.assign(next, next + static_cast<std::ptrdiff_t>(count));
    next += static_cast<std::ptrdiff_t>(count);
    for (size_t p = 0; p < count; ++p) {
      for (size_t r = 0; r < rows.size(); ++r) {
        k[r] = pool.k(rows[r]->pages(h)[p]);
        v[r] = pool.v(rows[r]->pages(h)[p]);
      }
      mean_page(k, pool.k(to[p]));
      mean_page(v, pool.v(to[p]));
    }
  }
  return std::shared_ptr<const FrameRows>(
      std::make_shared<FrameRows>(pool, 0, first.row_end(), std::move(pages)));
}

}  // namespace rk::kv
