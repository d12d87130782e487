#include <algorithm>
#include <map>

#include "base/check.h"
#include "kernels/layer/layer_cuda.h"
#include "kernels/seg_attn/seen_rows.h"
#include "model/card_step.h"

namespace rk::model {
namespace {

// Entries of the page tables that one launch writes: 12 bytes each of the arena.
constexpr size_t kScatterEntries = size_t{1} << 18;
// From here on entries that follow each other go up as rows of one copy.
constexpr size_t kManyEntries = 64;

// Of one layer; K, V, queries and results are bf16.
kernels::Work work_of(std::span<const kernels::SegAttnPlanSequence> sequences,
                      const kernels::SegAttnPlanOptions& options, int head_dim) {
  const double group = static_cast<double>(options.num_heads) / options.num_kv_heads;
  double pairs = 0, rows = 0, queries = 0;
  for (const auto& s : sequences) {
    for (const kernels::HeadSight& sight : s.sight) {
      const auto seen = kernels::count_seen(sight.sink, sight.window, s.q_pos, s.num_keys);
      pairs += group * static_cast<double>(seen.pairs);
      rows += static_cast<double>(seen.rows);
    }
    queries += static_cast<double>(s.q_pos.size());
  }
  return kernels::attention_work(pairs, 2 * rows * 2 * head_dim, queries, options.num_heads,
                                 head_dim, 2);
}

}  // namespace

Result<CardArena> CardArena::create(int64_t bytes, Stream stream) {
  CardArena out;
  out.stream_ = stream;
  out.capacity_ = rounded(bytes);
  RK_TRY(out.pinned_, Buffer::allocate(kStagings * out.capacity_, Memory::kPinned));
  RK_TRY(out.card_, Buffer::allocate(out.capacity_, Memory::kCard));
  return out;
}

Status CardArena::begin() {
  used_ = 0;
  current_ = (current_ + 1) % kStagings;
  if (in_flight_ == kStagings) {
    RK_RETURN_IF_ERROR(sync_stream(stream_));
    in_flight_ = 0;
  }
  return {};
}

Status CardArena::reserve(int64_t bytes) {
  const int64_t end = used_ + rounded(bytes);
  if (end > capacity_) {
    return exhausted("step: ", end, " bytes of row and plan tables, ", capacity_, " fit");
  }
  used_ = end;
  return {};
}

Status CardArena::upload() {
  if (used_ == 0) return {};
  ++in_flight_;
  uploaded_bytes_ += used_;
  return copy_to_card(card_.data(), staging(), used_, stream_);
}

Result<CardTables> CardTables::create(const Shape& shape, Stream stream) {
  CardTables out;
  out.shape_ = shape;
  out.stream_ = stream;
  out.places_.resize(static_cast<size_t>(shape.max_sequences));
  const int64_t entries = int64_t{shape.max_sequences} * shape.num_heads * shape.list_pages;
  RK_TRY(out.tables_, Buffer::allocate(entries * 4, Memory::kCard));
  RK_RETURN_IF_ERROR(zero_on_card(out.tables_.data(), out.tables_.num_bytes(), stream));
  return out;
}

Result<const int32_t*> CardTables::update(kv::SequenceKv& kv, CardArena& arena) {
  if (kv.num_entries() > shape_.list_pages) {
    return exhausted("page tables: ", kv.num_entries(), " pages in a head's list, ",
                     shape_.list_pages, " fit");
  }
  auto place = std::ranges::find(places_, kv.serial(), &Place::serial);
  std::vector<int32_t> entries = kv.take_changes();
  if (place == places_.end()) {
    RK_RETURN_IF_ERROR(flush(arena));  // a step that failed may have left entries of this place
    place = std::ranges::min_element(places_, {}, &Place::used_at);
    place->serial = kv.serial();
    entries.resize(static_cast<size_t>(kv.num_entries()));
    for (size_t i = 0; i < entries.size(); ++i) entries[i] = static_cast<int32_t>(i);
  }
  place->used_at = ++clock_;
  const int64_t base = (place - places_.begin()) * int64_t{shape_.num_heads} * shape_.list_pages;
  std::ranges::sort(entries);
  std::vector<int32_t> few;
  for (size_t i = 0, j = 0; i < entries.size(); i = j) {
    while (j < entries.size() && entries[j] - entries[i] == static_cast<int32_t>(j - i)) ++j;
    if (j - i < kManyEntries) {
      few.insert(few.end(), entries.begin() + static_cast<std::ptrdiff_t>(i),
                 entries.begin() + static_cast<std::ptrdiff_t>(j));
    } else {
      RK_RETURN_IF_ERROR(write_many(kv, entries[i], entries[j - 1] + 1, base, arena));
    }
  }
  const size_t per_launch = std::max<size_t>(1, kScatterEntries / shape_.num_heads);
  const std::span<const int32_t> all(few);
  for (size_t i = 0; i < all.size(); i += per_launch) {
    const auto part = all.subspan(i, std::min(per_launch, all.size() - i));
    RK_RETURN_IF_ERROR(write_few(kv, part, base, arena));
  }
  return tables_.as<int32_t>() + base;
}

Status CardTables::write_many(const kv::SequenceKv& kv, int32_t begin, int32_t end, int64_t base,
                              CardArena& arena) {
  const int64_t row_bytes = int64_t{end - begin} * 4;
  return arena.send_rows(tables_.as<int32_t>() + base + begin, shape_.list_pages * int64_t{4},
                         row_bytes, kv.num_heads(), [&](int64_t h, std::byte* to) {
                           std::memcpy(to, kv.pages(static_cast<size_t>(h)).data() + begin,
                                       static_cast<size_t>(row_bytes));
                         });
}

Status CardTables::write_few(const kv::SequenceKv& kv, std::span<const int32_t> entries,
                             int64_t base, CardArena& arena) {
  const size_t more = entries.size() * static_cast<size_t>(kv.num_heads());
  size_t at = index_.size();
  index_.resize(at + more);
  value_.resize(at + more);
  for (int h = 0; h < kv.num_heads(); ++h) {
    const auto pages = kv.pages(static_cast<size_t>(h));
    for (const int32_t i : entries) {
      index_[at] = base + int64_t{h} * shape_.list_pages + i;
      value_[at++] = pages[static_cast<size_t>(i)];
    }
  }
  return index_.size() < kScatterEntries ? Status() : flush(arena);
}

Status CardTables::flush(CardArena& arena) {
  if (index_.empty()) return {};
  RK_RETURN_IF_ERROR(arena.begin());
  RK_TRY(const int64_t* card_index, arena.add(index_));
  RK_TRY(const int32_t* card_value, arena.add(value_));
  RK_RETURN_IF_ERROR(arena.upload());
  const auto num = static_cast<int64_t>(index_.size());
  index_.clear();
  value_.clear();
  return kernels::scatter_i32_cuda(card_index, card_value, num, tables_.as<int32_t>(), stream_);
}

Result<const CardSights::Set*> CardSights::find(std::span<const kv::Visible> visible,
                                                std::span<const uint8_t> keeps_stored,
                                                int num_layers, Stream stream) {
  if (std::ranges::count(keeps_stored, 1) == 0) keeps_stored = {};
  const auto same = [](const kernels::HeadSight& h, const kv::Visible& v) {
    return h.sink == v.sink && h.window == v.window;
  };
  for (const auto& set : sets_) {
    if (std::ranges::equal(set->sight, visible, same) &&
        std::ranges::equal(set->keeps_stored, keeps_stored)) {
      return static_cast<const Set*>(set.get());
    }
  }
  std::vector<kernels::HeadSight> sight;
  for (const kv::Visible& v : visible) sight.push_back({v.sink, v.window});
  auto set = std::make_unique<Set>();
  const size_t per_layer = sight.size() / static_cast<size_t>(num_layers);
  const auto layer = [&](int l) {
    return std::span(sight).subspan(static_cast<size_t>(l) * per_layer, per_layer);
  };
  for (int l = 0; l < num_layers; ++l) {
    int first = 0;
    while (!std::ranges::equal(layer(first), layer(l))) ++first;
    set->layer_class.push_back(first);
  }
  const auto bytes = static_cast<int64_t>(sight.size() * sizeof(kernels::HeadSight));
  RK_TRY(set->card, Buffer::allocate(bytes, Memory::kCard));
  RK_RETURN_IF_ERROR(copy_to_card(set->card.data(), sight.data(), bytes, stream));
  set->keeps_stored.assign(keeps_stored.begin(), keeps_stored.end());
  if (!keeps_stored.empty()) {
    const auto num = static_cast<int64_t>(keeps_stored.size());
    RK_TRY(set->card_keeps, Buffer::allocate(num, Memory::kCard));
    RK_RETURN_IF_ERROR(copy_to_card(set->card_keeps.data(), keeps_stored.data(), num, stream));
  }
  RK_RETURN_IF_ERROR(sync_stream(stream));  // once per set: the arrays are not pinned
  set->sight = std::move(sight);
  sets_.push_back(std::move(set));
  return static_cast<const Set*>(sets_.back().get());
}

Status plan_layers(std::span<const CardSights::Set* const> sets,
                   std::span<const std::span<const int32_t>> q_pos,
                   std::span<const int32_t> num_keys, int first_layer, int last_layer,
                   const kernels::SegAttnPlanOptions& options, int head_dim, int grain,
                   CardArena& arena, CardPlans& out) {
  const auto bound = [&](size_t num) {
    return static_cast<int>((num + static_cast<size_t>(grain) - 1) / static_cast<size_t>(grain)) *
           grain;
  };
  std::vector<const CardSights::Set*> distinct(sets.begin(), sets.end());
  std::ranges::sort(distinct);
  distinct.erase(std::ranges::unique(distinct).begin(), distinct.end());
  std::map<std::vector<int>, int> known;  // classes of all distinct sets -> plan
  for (int l = first_layer; l < last_layer; ++l) {
    std::vector<int> key;
    for (const auto* set : distinct) key.push_back(set->layer_class[static_cast<size_t>(l)]);
    const auto [at, is_new] = known.try_emplace(key, static_cast<int>(out.plans.size()));
    out.plan_of_layer.push_back(at->second);
    if (!is_new) continue;
    std::vector<kernels::SegAttnPlanSequence> sequences;
    const auto heads = static_cast<size_t>(options.num_kv_heads);
    for (size_t b = 0; b < sets.size(); ++b) {
      sequences.push_back({q_pos[b],
                           std::span(sets[b]->sight).subspan(static_cast<size_t>(l) * heads, heads),
                           num_keys[b]});
    }
    const kernels::SegAttnPlan plan = kernels::plan_seg_attn(sequences, options);
    CardPlans::Plan& on_card = out.plans.emplace_back();
    on_card.work = work_of(sequences, options, head_dim);
    on_card.max_items = bound(plan.items.size());
    on_card.max_merges = bound(plan.merges.size());
    on_card.max_item_rows = plan.max_item_rows;
    RK_TRY(on_card.items, arena.add_padded(plan.items, static_cast<size_t>(on_card.max_items)));
    RK_TRY(on_card.merges, arena.add_padded(plan.merges, static_cast<size_t>(on_card.max_merges)));
    const int32_t counts[] = {static_cast<int32_t>(plan.items.size()),
                              static_cast<int32_t>(plan.merges.size())};
    RK_TRY(on_card.counts, arena.add(std::span<const int32_t>(counts)));
  }
  return {};
}

}  // namespace rk::model
