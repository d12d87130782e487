// What a card must be told before a step: page tables of the sequences, and the step's own rows and
// plans, staged in pinned memory and copied up in one piece. Engine thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "kernels/seg_attn/seg_attn_cuda.h"
#include "kv/sequence_kv.h"
#include "tensor/buffer.h"
#include "tensor/device.h"

namespace rk::model {

/// Host arrays gathered for one copy to the card.
class CardArena {
 public:
  static Result<CardArena> create(int64_t bytes, Stream stream);
  /// Starts over; waits for the card only where every staging buffer is still in flight.
  Status begin();
  /// Where the array will lie on the card. Errors: kExhausted with both numbers.
  template <class T>
  Result<const T*> add(std::span<const T> values) {
    const auto bytes = static_cast<int64_t>(values.size_bytes());
    const int64_t at = used_;
    RK_RETURN_IF_ERROR(reserve(bytes));
    if (bytes > 0) std::memcpy(staging() + at, values.data(), static_cast<size_t>(bytes));
    return reinterpret_cast<const T*>(card_.as<std::byte>() + at);
  }
  template <class T>
  Result<const T*> add(const std::vector<T>& values) {
    return add(std::span<const T>(values));
  }
  /// The same with room for `num` values, so that what follows stays where it is while a step of
  /// the same kind brings more or fewer.
  template <class T>
  Result<const T*> add_padded(const std::vector<T>& values, size_t num) {
    RK_TRY(const T* at, add(values));
    if (num > values.size()) {
      const auto have = static_cast<int64_t>(values.size() * sizeof(T));
      const auto want = static_cast<int64_t>(num * sizeof(T));
      RK_RETURN_IF_ERROR(reserve(rounded(want) - rounded(have)));
    }
    return at;
  }
  Status upload();
  /// Instead of upload(): staged rows of `row_bytes` go to `card`, `card_stride` bytes apart.
  /// `fill(i, bytes)` writes row i. Errors: kExhausted where they do not fit.
  template <class Fill>
  Status send_rows(void* card, int64_t card_stride, int64_t row_bytes, int64_t num_rows,
                   const Fill& fill) {
    RK_RETURN_IF_ERROR(begin());
    RK_RETURN_IF_ERROR(reserve(row_bytes * num_rows));
    for (int64_t i = 0; i < num_rows; ++i) fill(i, staging() + i * row_bytes);
    ++in_flight_;
    uploaded_bytes_ += row_bytes * num_rows;
    return copy_rows_to_card(card, card_stride, staging(), row_bytes, num_rows, stream_);
  }
  /// To be called where the stream is known to be empty.
  void all_done() { in_flight_ = 0; }
  int64_t num_bytes() const { return pinned_.num_bytes() + card_.num_bytes(); }
  /// Bytes that went up since the last call.
  int64_t take_uploaded_bytes() { return std::exchange(uploaded_bytes_, 0); }

 private:
  static constexpr int kStagings = 4;
  static constexpr int64_t kAlign = 256;
  std::byte* staging() const { return pinned_.as<std::byte>() + current_ * capacity_; }
  static int64_t rounded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
  Status reserve(int64_t bytes);
  Stream stream_ = nullptr;
  int64_t capacity_ = 0, used_ = 0, uploaded_bytes_ = 0;
  int current_ = 0, in_flight_ = 0;
  Buffer pinned_, card_;
};

/// The page lists of up to `max_sequences` sequences on the card, kept in step with the host's:
/// only entries that changed go up.
class CardTables {
 public:
  struct Shape {
    int max_sequences = 1, num_heads = 1;  ///< heads: layers * KV heads
    int list_pages = 1;                    ///< entries of one head's list
  };
  static Result<CardTables> create(const Shape& shape, Stream stream);
  /// Requires: `kv` has no more heads than the shape.
  /// Brings the table of `kv` up to date and says where it lies; flush() ends the updates of a
  /// step. Of more sequences than fit the one not used for longest loses its place. Errors:
  /// kExhausted where its list is too long.
  Result<const int32_t*> update(kv::SequenceKv& kv, CardArena& arena);
  /// Single entries of all updated sequences go up together.
  Status flush(CardArena& arena);
  int64_t page_stride() const { return shape_.list_pages; }
  int64_t num_bytes() const { return tables_.num_bytes(); }

 private:
  struct Place {
    uint64_t serial = 0, used_at = 0;
  };
  /// A few entries wherever they are (with the next flush), or many that follow each other.
  Status write_few(const kv::SequenceKv& kv, std::span<const int32_t> entries, int64_t base,
                   CardArena& arena);
  Status write_many(const kv::SequenceKv& kv, int32_t begin, int32_t end, int64_t base,
                    CardArena& arena);
  Shape shape_;
  Stream stream_ = nullptr;
  uint64_t clock_ = 0;
  std::vector<Place> places_;
  std::vector<int64_t> index_;  ///< of entries that the next flush writes,
  std::vector<int32_t> value_;  ///< and what they become
  Buffer tables_;
};

/// What heads see and which keep stored rows, on the card, once per distinct set; and which layers
/// of a set see alike.
class CardSights {
 public:
  struct Set {
    std::vector<kernels::HeadSight> sight;  ///< [L*G]
    std::vector<int> layer_class;           ///< [L] first layer that sees the same
    Buffer card;
    std::vector<uint8_t> keeps_stored;  ///< [L*G], as SequenceKv's; empty where no head does
    Buffer card_keeps;
  };
  /// Requires: visible.size() is num_layers times the number of KV heads, keeps_stored.size() is
  /// that or 0.
  Result<const Set*> find(std::span<const kv::Visible> visible,
                          std::span<const uint8_t> keeps_stored, int num_layers, Stream stream);

 private:
  std::vector<std::unique_ptr<Set>> sets_;
};

/// The attention plans of a step: one for all layers that see alike.
struct CardPlans {
  struct Plan {
    const kernels::SegAttnItem* items = nullptr;
    const kernels::SegAttnMerge* merges = nullptr;
    const int32_t* counts = nullptr;
    int max_items = 0, max_merges = 0, max_item_rows = 0;
    kernels::Work work;  ///< of one layer
  };
  std::vector<Plan> plans;
  std::vector<int> plan_of_layer;  ///< [L]
  /// Of the planned layers [begin, end); none where nothing was planned.
  kernels::Work work(int begin, int end) const {
    kernels::Work out;
    for (size_t l = static_cast<size_t>(begin); l < std::min<size_t>(end, plan_of_layer.size());
         ++l) {
      out += plans[static_cast<size_t>(plan_of_layer[l])].work;
    }
    return out;
  }
};

/// Plans `layers` (a half-open range) for the given query rows; arrays go into the arena.
/// `sets`, `q_pos` and `num_keys` are per sequence. Bounds are rounded up to `grain`. `head_dim`
/// is for counting the work.
Status plan_layers(std::span<const CardSights::Set* const> sets,
                   std::span<const std::span<const int32_t>> q_pos,
                   std::span<const int32_t> num_keys, int first_layer, int last_layer,
                   const kernels::SegAttnPlanOptions& options, int head_dim, int grain,
                   CardArena& arena, CardPlans& out);

}  // namespace rk::model
