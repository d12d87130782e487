#include "kv/mean_rows.h"

#include "base/check.h"

namespace rk::kv {

Result<std::shared_ptr<const FrameRows>> mean_rows(
    PagePool& pool, std::span<const std::shared_ptr<const FrameRows>> rows) {
  RK_CHECK(!rows.empty());
  const FrameRows& first = *rows[0];
  for (const auto& other : rows) {
    RK_CHECK(other->row_begin() == 0 && other->row_end() == first.row_end());
    RK_CHECK(other->num_heads() == first.num_heads());
  }
  std::vector<PageId> got;
  RK_RETURN_IF_ERROR(pool.allocate(first.num_pages(), got));
  std::vector<std::vector<PageId>> pages(static_cast<size_t>(first.num_heads()));
  std::vector<PageId> from(rows.size());
  auto next = got.begin();
  for (int h = 0; h < first.num_heads(); ++h) {
    const size_t count = first.pages(h).size();
    auto& to = pages[static_cast<size_t>(h)];
    to.assign(next, next + static_cast<std::ptrdiff_t>(count));
    next += static_cast<std::ptrdiff_t>(count);
    for (size_t p = 0; p < count; ++p) {
      for (size_t r = 0; r < rows.size(); ++r) from[r] = rows[r]->pages(h)[p];
      pool.mean_page(from, to[p]);
    }
  }
  return std::shared_ptr<const FrameRows>(
      std::make_shared<FrameRows>(pool, 0, first.row_end(), std::move(pages)));
}

}  // namespace rk::kv
