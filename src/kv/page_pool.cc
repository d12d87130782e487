#include "kv/page_pool.h"

#include <sys/mman.h>

#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "tensor/device.h"

namespace rk::kv {
namespace {

Status check_options(const PagePool::Options& o) {
  if (o.dtype != DType::kF16 && o.dtype != DType::kBf16 && o.dtype != DType::kF32) {
    return invalid_argument("page pool: rows of ", dtype_name(o.dtype),
                            " are not supported; known: f16, bf16, f32");
  }
  if (o.page_rows < 1 || o.page_rows > 4096) {
    return invalid_argument("page pool: page_rows ", o.page_rows, " is outside 1..4096");
  }
  if (o.head_dim < 1 || o.head_dim > 65536) {
    return invalid_argument("page pool: head_dim ", o.head_dim, " is outside 1..65536");
  }
  return {};
}

int64_t half_page_bytes(const PagePool::Options& o) {
  return dtype_bytes(o.dtype, int64_t{o.page_rows} * o.head_dim);
}

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

void mean_of(std::span<const View> from, const View& to) {
  const float share = 1.0F / static_cast<float>(from.size());
  const int64_t size = to.num_elements();
  for (int64_t i = 0; i < size; ++i) {
    float sum = 0;
    for (const View& page : from) sum += load(page, i);
    store(to, i, sum * share);
  }
}

}  // namespace

int64_t PagePool::page_bytes(const Options& options) { return 2 * half_page_bytes(options); }

Result<std::unique_ptr<PagePool>> PagePool::create(const Options& options) {
  RK_RETURN_IF_ERROR(check_options(options));
  const int64_t num_pages = options.capacity_bytes / page_bytes(options);
  if (options.capacity_bytes < 0 || num_pages < 1) {
    return invalid_argument("page pool: capacity is ", options.capacity_bytes,
                            " bytes, one page needs ", page_bytes(options));
  }
  if (num_pages > std::numeric_limits<PageId>::max()) {
    return invalid_argument("page pool: capacity is ", num_pages, " pages, at most ",
                            std::numeric_limits<PageId>::max(), " can be numbered");
  }
  RK_TRY(Buffer k, Buffer::allocate(num_pages * half_page_bytes(options), options.memory));
  RK_TRY(Buffer v, Buffer::allocate(num_pages * half_page_bytes(options), options.memory));
  for (const Buffer* buffer : {&k, &v}) {
    if (options.memory == Memory::kCard) {
      RK_RETURN_IF_ERROR(zero_on_card(buffer->data(), buffer->num_bytes(), nullptr));
      RK_RETURN_IF_ERROR(sync_stream(nullptr));
      continue;
    }
    // Attention reads pages all over the pool: large pages where the system gives them.
    madvise(buffer->data(), static_cast<size_t>(buffer->num_bytes()), MADV_HUGEPAGE);
  }
  return std::unique_ptr<PagePool>(new PagePool(options, num_pages, std::move(k), std::move(v)));
}

PagePool::PagePool(const Options& options, int64_t num_pages, Buffer k, Buffer v)
    : options_(options),
      num_pages_(num_pages),
      k_(std::move(k)),
      v_(std::move(v)),
      k_view_(k_.data(), options.dtype, {num_pages, options.page_rows, options.head_dim}),
      v_view_(v_.data(), options.dtype, {num_pages, options.page_rows, options.head_dim}) {
  shares_.reserve(static_cast<size_t>(num_pages));  // so that a step allocates nothing
  free_.reserve(static_cast<size_t>(num_pages));
}

PagePool::~PagePool() { RK_DCHECK(num_used_ == 0); }

Status PagePool::allocate(int64_t num_pages, std::vector<PageId>& out) {
  if (num_pages < 0) return invalid_argument("page pool: ", num_pages, " pages wanted");
  if (num_pages > num_free()) {
    return exhausted("page pool: ", num_pages, " pages wanted, ", num_free(), " free");
  }
  out.reserve(out.size() + static_cast<size_t>(num_pages));
  for (int64_t i = 0; i < num_pages; ++i) {
    if (free_.empty()) {
      out.push_back(static_cast<PageId>(shares_.size()));
      shares_.push_back(1);
    } else {
      const PageId id = free_.back();
      free_.pop_back();
      shares_[static_cast<size_t>(id)] = 1;
      out.push_back(id);
    }
  }
  num_used_ += num_pages;
  return {};
}

bool PagePool::in_use(PageId id) const {
  return id >= 0 && static_cast<size_t>(id) < shares_.size() &&
         shares_[static_cast<size_t>(id)] > 0;
}

void PagePool::retain(PageId id) {
  RK_CHECK(in_use(id));
  ++shares_[static_cast<size_t>(id)];
}

void PagePool::release(PageId id) {
  RK_CHECK(in_use(id));
  if (--shares_[static_cast<size_t>(id)] > 0) return;
  free_.push_back(id);
  --num_used_;
}

int32_t PagePool::refcount(PageId id) const {
  RK_CHECK(id >= 0 && id < num_pages_);
  return static_cast<size_t>(id) < shares_.size() ? shares_[static_cast<size_t>(id)] : 0;
}

View PagePool::k(PageId id) const {
  RK_DCHECK(id >= 0 && id < num_pages_);
  return View(k_.as<std::byte>() + id * half_page_bytes(options_), options_.dtype,
              {options_.page_rows, options_.head_dim});
}
View PagePool::v(PageId id) const {
  RK_DCHECK(id >= 0 && id < num_pages_);
  return View(v_.as<std::byte>() + id * half_page_bytes(options_), options_.dtype,
              {options_.page_rows, options_.head_dim});
}

void PagePool::copy_page(PageId from, PageId to) {
  RK_CHECK(in_use(from) && in_use(to) && from != to);
  if (options_.memory == Memory::kCard) return copies_.push_back({from, to});
  const auto bytes = static_cast<size_t>(half_page_bytes(options_));
  std::memcpy(k(to).data, k(from).data, bytes);
  std::memcpy(v(to).data, v(from).data, bytes);
}

void PagePool::mean_page(std::span<const PageId> from, PageId to) {
  RK_CHECK(!from.empty() && in_use(to));
  for (const PageId id : from) RK_CHECK(in_use(id) && id != to);
  if (options_.memory == Memory::kCard) {
    if (means_.empty() || means_.back().num_from != from.size()) {
      means_.push_back({from.size(), {}, {}});
    }
    Means& noted = means_.back();
    noted.from.insert(noted.from.end(), from.begin(), from.end());
    return noted.to.push_back(to);
  }
  std::vector<View> k_rows, v_rows;
  for (const PageId id : from) {
    k_rows.push_back(k(id));
    v_rows.push_back(v(id));
  }
  mean_of(k_rows, k(to));
  mean_of(v_rows, v(to));
}

PageList& PageList::operator=(PageList&& other) noexcept {
  if (this != &other) {
    clear();
    swap(other);
  }
  return *this;
}

void PageList::swap(PageList& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(ids_, other.ids_);
  std::swap(num_held_, other.num_held_);
}

Status PageList::grow(int64_t num_pages) {
  RK_CHECK(pool_ != nullptr);
  RK_RETURN_IF_ERROR(pool_->allocate(num_pages, ids_));
  num_held_ += num_pages;
  return {};
}

void PageList::push_owned(PageId id) {
  ids_.push_back(id);
  if (id != kNoPage) ++num_held_;
}

void PageList::push_shared(PageId id) {
  if (id != kNoPage) pool_->retain(id);
  push_owned(id);
}

void PageList::replace(size_t i, PageId id) {
  RK_CHECK(i < ids_.size());
  const PageId old = std::exchange(ids_[i], id);
  if (id != kNoPage) ++num_held_;
  if (old == kNoPage) return;
  --num_held_;
  pool_->release(old);
}

void PageList::pop_front(size_t num) {
  RK_CHECK(num <= ids_.size());
  for (size_t i = 0; i < num; ++i) drop(i);
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(num));
}

void PageList::truncate(size_t size) {
  while (ids_.size() > size) {
    drop(ids_.size() - 1);
    ids_.pop_back();
  }
}

bool PageList::is_shared(size_t i) const {
  RK_CHECK(i < ids_.size());
  return ids_[i] != kNoPage && pool_->refcount(ids_[i]) > 1;
}

}  // namespace rk::kv
