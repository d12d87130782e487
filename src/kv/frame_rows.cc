#include "kv/frame_rows.h"

namespace rk::kv {

FrameRows::~FrameRows() {
  for (const auto& list : pages_) {
    for (const PageId page : list) {
      if (page != kNoPage) pool_.release(page);
    }
  }
}

int64_t FrameRows::num_pages() const {
  int64_t n = 0;
  for (const auto& list : pages_) n += static_cast<int64_t>(list.size());
  return n;
}

}  // namespace rk::kv
