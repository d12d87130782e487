// A step of the decoder on a card.
#include "model/decoder_cuda.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/layer/layer_cuda.h"
#include "kernels/seg_attn/seen_rows.h"
#include "tensor/quant_block.h"

namespace rk::model {
namespace {

constexpr View kNone;
constexpr size_t kMaxRecorded = 16;
// Decode steps leave room for items, merges and runs to become more.
constexpr int kDecodeGrain = 256;
constexpr size_t kRunGrain = 16, kAdjustGrain = 1024;

}  // namespace

// What the pool noted: means first, copies may take from them.
Status CudaDecoder::run_noted(kv::PagePool& pool) {
  constexpr size_t kPerLaunch = size_t{1} << 19;
  for (const auto& means : pool.take_means()) {
    const std::span<const kv::PageId> all_from(means.from), all_to(means.to);
    const size_t n = means.num_from, per_launch = std::max<size_t>(kPerLaunch / n, 1);
    for (size_t begin = 0; begin < all_to.size(); begin += per_launch) {
      const size_t num = std::min(all_to.size() - begin, per_launch);
      RK_RETURN_IF_ERROR(arena_.begin());
      RK_TRY(const int32_t* from, arena_.add(all_from.subspan(begin * n, num * n)));
      RK_TRY(const int32_t* to, arena_.add(all_to.subspan(begin, num)));
      RK_RETURN_IF_ERROR(arena_.upload());
      RK_RETURN_IF_ERROR(kernels::mean_pages_cuda(pool.k_pages(), pool.v_pages(), from, to,
                                                  static_cast<int>(n), static_cast<int64_t>(num),
                                                  stream_));
    }
  }
  const auto copies = pool.take_copies();
  for (size_t begin = 0; begin < copies.size(); begin += kPerLaunch) {
    std::vector<int32_t> from, to;
    for (size_t i = begin; i < std::min(copies.size(), begin + kPerLaunch); ++i) {
      from.push_back(copies[i].from);
      to.push_back(copies[i].to);
    }
    RK_RETURN_IF_ERROR(arena_.begin());
    RK_TRY(const int32_t* card_from, arena_.add(from));
    RK_TRY(const int32_t* card_to, arena_.add(to));
    RK_RETURN_IF_ERROR(arena_.upload());
    RK_RETURN_IF_ERROR(kernels::copy_pages_cuda(pool.k_pages(), pool.v_pages(), card_from, card_to,
                                                static_cast<int64_t>(from.size()), stream_));
  }
  return {};
}

Status CudaDecoder::stage(const StepInput& input, const Rows& rows, Step& step) {
  const size_t num_sequences = input.sequences.size();
  step.num_layers = num_layers(input);
  if (num_sequences > static_cast<size_t>(options_.max_sequences)) {
    return invalid_argument("step: ", num_sequences, " sequences, ", options_.max_sequences,
                            " fit");
  }
  std::vector<const int32_t*> pages;
  std::vector<const CardSights::Set*> sets;
  std::vector<int32_t> num_keys;
  for (const StepSequence& s : input.sequences) {
    RK_RETURN_IF_ERROR(run_noted(s.kv->pool()));
    RK_TRY(const int32_t* table, tables_.update(*s.kv, arena_));
    RK_TRY(const auto* set,
           sights_.find(s.kv->visible(), s.kv->keeps_stored(), step.num_layers, stream_));
    pages.push_back(table);
    sets.push_back(set);
    num_keys.push_back(s.kv->num_positions());
    step.k_pages = s.kv->k_pages();
    step.v_pages = s.kv->v_pages();
  }
  RK_RETURN_IF_ERROR(tables_.flush(arena_));
  RK_RETURN_IF_ERROR(arena_.begin());
  const auto num_rows = rows.tokens.size();
  step.is_decode = num_rows == num_sequences && num_rows == input.logits_rows.size() &&
                   input.scores == nullptr && input.ffn == nullptr &&
                   std::ranges::all_of(input.sequences, [](const StepSequence& s) {
                     return s.positions.size() == 1;
                   });
  step.ffn = input.ffn;
  std::vector<int32_t> sequence(num_rows), page_index(num_rows), page_slot(num_rows);
  std::vector<uint8_t> in_stored(num_rows);
  std::vector<kernels::DeviceSequence> sequences, logits_sequences;
  std::vector<std::span<const int32_t>> q_pos, logits_q_pos;
  std::vector<int32_t> logits_positions;
  for (const int32_t row : input.logits_rows) {
    logits_positions.push_back(rows.positions[static_cast<size_t>(row)]);
  }
  auto logits_row = input.logits_rows.begin();
  for (size_t b = 0; b < num_sequences; ++b) {
    const StepSequence& s = input.sequences[b];
    const auto begin = static_cast<size_t>(rows.q_begin[b]), end = begin + s.positions.size();
    std::fill(sequence.begin() + static_cast<std::ptrdiff_t>(begin),
              sequence.begin() + static_cast<std::ptrdiff_t>(end), static_cast<int32_t>(b));
    s.kv->entries(s.positions, page_index.data() + begin, page_slot.data() + begin);
    kernels::DeviceSequence& on_card = sequences.emplace_back();
    const auto runs = s.kv->runs();
    const size_t grain = step.is_decode ? kRunGrain : 1;
    RK_TRY(on_card.runs, arena_.add_padded(runs, (runs.size() + grain - 1) / grain * grain));
    on_card.num_runs = static_cast<int32_t>(runs.size());
    on_card.q_begin = static_cast<int32_t>(begin);
    on_card.pages = pages[b];
    on_card.page_stride = tables_.page_stride();
    on_card.sight = sets[b]->card.as<kernels::HeadSight>();
    if (!sets[b]->keeps_stored.empty()) {
      on_card.keeps_stored = sets[b]->card_keeps.as<uint8_t>();
      s.kv->in_stored(s.positions, in_stored.data() + begin);
    }
    q_pos.push_back(s.positions);
    logits_sequences.push_back(on_card);
    logits_sequences.back().q_begin = static_cast<int32_t>(logits_row - input.logits_rows.begin());
    const auto first = logits_row;
    while (logits_row != input.logits_rows.end() && *logits_row < static_cast<int32_t>(end)) {
      ++logits_row;
    }
    logits_q_pos.push_back(std::span<const int32_t>(logits_positions)
                               .subspan(static_cast<size_t>(first - input.logits_rows.begin()),
                                        static_cast<size_t>(logits_row - first)));
  }
  RK_TRY(step.tokens, arena_.add(rows.tokens));
  RK_TRY(step.positions, arena_.add(rows.positions));
  RK_TRY(step.row_index, arena_.add(rows.row_index));
  RK_TRY(step.sequence, arena_.add(sequence));
  RK_TRY(step.page_index, arena_.add(page_index));
  RK_TRY(step.page_slot, arena_.add(page_slot));
  if (std::ranges::count(in_stored, 1) > 0) {
    RK_TRY(step.in_stored, arena_.add(in_stored));
  }
  RK_TRY(step.sequences, arena_.add(sequences));
  step.num_logits = static_cast<int64_t>(input.logits_rows.size());
  RK_TRY(step.logits_rows, arena_.add(input.logits_rows));
  RK_TRY(step.logits_positions, arena_.add(logits_positions));
  RK_TRY(step.logits_sequences, arena_.add(logits_sequences));
  RK_RETURN_IF_ERROR(stage_scores(input, rows, *sets[0], step));
  kernels::SegAttnPlanOptions plan;
  plan.num_heads = config_.num_heads;
  plan.num_kv_heads = config_.num_kv_heads;
  plan.num_sms = card_.num_sms;
  plan.max_parts = kMaxCardParts;
  if (input.sampling != nullptr) {
    const auto& sampling = *input.sampling;
    RK_TRY(step.sample_rows, arena_.add(sampling.rows));
    const std::vector<kernels::SampleAdjust> adjust(sampling.adjust.begin(), sampling.adjust.end());
    const size_t room = (adjust.size() + kAdjustGrain - 1) / kAdjustGrain * kAdjustGrain;
    RK_TRY(step.sample_adjust, arena_.add_padded(adjust, room));
  }
  const int last = step.num_layers - 1, grain = step.is_decode ? kDecodeGrain : 1;
  // Layers that all rows attend in: of a decode step the last one too, its rows all have logits.
  const int last_of_all = step.num_scored > 0 || step.is_decode ? last + 1 : last;
  RK_RETURN_IF_ERROR(plan_layers(sets, q_pos, num_keys, 0, last_of_all, plan, config_.head_dim,
                                 grain, arena_, step.plans));
  if (step.is_decode) {
    step.logits_plan.plans = {
        step.plans.plans[static_cast<size_t>(step.plans.plan_of_layer.back())]};
    step.logits_plan.plan_of_layer = {0};
    step.plans.plan_of_layer.pop_back();
  } else if (step.num_logits > 0) {
    RK_RETURN_IF_ERROR(plan_layers(sets, logits_q_pos, num_keys, last, last + 1, plan,
                                   config_.head_dim, grain, arena_, step.logits_plan));
  }
  return arena_.upload();
}

Status CudaDecoder::stage_scores(const StepInput& input, const Rows& rows,
                                 const CardSights::Set& set, Step& step) {
  if (input.scores == nullptr) return {};
  const auto& positions = rows.positions;
  const auto first =
      std::lower_bound(positions.begin(), positions.end(), input.scores->first_query);
  step.first_scored = first - positions.begin();
  step.num_scored = positions.end() - first;
  if (step.num_scored == 0) return {};
  const kv::SequenceKv& kv = *input.sequences[0].kv;
  step.num_keys = kv.num_positions();
  const auto mass_size = static_cast<int64_t>(input.scores->mass.size());
  if (step.num_keys > std::min(mass_size, context_tokens())) {
    return invalid_argument("step: scores of ", step.num_keys, " positions, room for ", mass_size,
                            ", context ", context_tokens());
  }
  const auto scored = std::span(positions).subspan(static_cast<size_t>(step.first_scored));
  const auto tiles = kernels::attn_mass_tiles(kv.runs(), scored.back() + 1,
                                              kernels::attn_mass_tile_rows(config_.head_dim));
  RK_TRY(step.tiles, arena_.add(tiles));
  step.num_tiles = static_cast<int>(tiles.size());
  const auto group = static_cast<double>(config_.num_heads / config_.num_kv_heads);
  kernels::SeenRows seen;
  for (const kernels::HeadSight& sight : set.sight) {
    const auto head = kernels::count_seen(sight.sink, sight.window, scored, step.num_keys);
    seen.pairs += head.pairs;
    seen.rows += head.rows;
  }
  step.mass_work = kernels::mass_work(
      group * static_cast<double>(seen.pairs),
      static_cast<double>(seen.rows * dtype_bytes(DType::kBf16, config_.head_dim)),
      static_cast<double>(step.num_scored * config_.num_layers), config_.num_heads,
      config_.head_dim, 2);
  return {};
}

// What of the layer's attention over all rows of the step the sink wants.
Status CudaDecoder::add_scores(int layer, const View& q, const Step& step) {
  kernels::AttnMassCudaArgs args;
  args.q = q.rows(step.first_scored, q.dim[0]);
  args.k_pages = step.k_pages;
  args.q_pos = step.positions + step.first_scored;
  args.lse = lse_ + step.first_scored * config_.num_heads;
  args.sequence = step.sequences;
  args.tiles = step.tiles;
  args.num_tiles = step.num_tiles;
  args.layer = layer;
  args.num_kv_heads = config_.num_kv_heads;
  args.rope = rope_;
  args.scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
  args.mass = mass_.as<float>();
  args.mass_stride = step.num_keys;
  return kernels::attn_mass_cuda(args, stream_);
}

Status CudaDecoder::attend(int layer, const View& q, const View& o, const int32_t* q_pos,
                           const kernels::DeviceSequence* sequences, const CardPlans::Plan& plan,
                           const Step& step) {
  kernels::SegAttnCudaArgs args;
  args.q = q;
  args.k_pages = step.k_pages;
  args.v_pages = step.v_pages;
  args.o = o;
  // Those of the last layer's rows with logits are of other rows.
  if (step.num_scored > 0 && q_pos == step.positions) args.lse = lse_;
  args.q_pos = q_pos;
  args.sequences = sequences;
  args.layer = layer;
  args.num_kv_heads = config_.num_kv_heads;
  args.rope = rope_;
  args.scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
  args.items = plan.items;
  args.merges = plan.merges;
  args.counts = plan.counts;
  args.max_items = plan.max_items;
  args.max_merges = plan.max_merges;
  args.max_item_rows = plan.max_item_rows;
  args.part_o = part_o_;
  args.part_lse = part_lse_;
  args.next_item = next_item_;
  args.old_rows_ready = step.is_decode;
  return kernels::seg_attn_cuda(args, "", stream_);
}

void CudaDecoder::count(int64_t num_rows, const kernels::CudaWeight& w, DType y_dtype,
                        bool accumulate) {
  const auto num = [](int64_t n) { return static_cast<double>(n); };
  linear_ += kernels::gemm_work(num(num_rows), num(w.n()), num(w.k()), num(w.num_bytes()), 2,
                                y_dtype == DType::kF32 ? 4 : 2, accumulate);
}
Status CudaDecoder::linear(const kernels::GemmCudaArgs& a) {
  count(a.x.dim[0], *a.w, a.y.dtype, a.accumulate);
  return gemm_->run(a);
}
Status CudaDecoder::linear_normed(const kernels::NormedGemmArgs& a) {
  count(a.x.dim[0], *a.w, a.y.dtype, false);
  return gemm_->run_normed(a);
}

Status CudaDecoder::run_layer(int index, int64_t num_rows, const Step& step) {
  const Layer& w = layers_[static_cast<size_t>(index)];
  const ModelConfig& c = config_;
  const bool is_last = index + 1 == step.num_layers;
  View x = rows_of(x_, num_rows);
  const View normed = rows_of(normed_, num_rows), qkv = rows_of(qkv_, num_rows);
  const auto bias = [](const Buffer& b) { return b.num_bytes() > 0 ? vector_view(b) : kNone; };
  kernels::NormedGemmArgs project{.x = x,
                                  .norm = vector_view(w.attn_norm),
                                  .eps = c.rms_eps,
                                  .w = w.qkv.get(),
                                  .bias = bias(w.qkv_bias),
                                  .y = qkv,
                                  .normed = normed};
  RK_RETURN_IF_ERROR(linear_normed(project));
  kernels::QkvWriteCudaArgs write;
  write.qkv = qkv;
  write.num_heads = c.num_heads;
  write.num_kv_heads = c.num_kv_heads;
  write.head_dim = c.head_dim;
  write.layer = index;
  write.q_norm = w.q_norm.as<float>();
  write.k_norm = w.k_norm.as<float>();
  write.eps = c.rms_eps;
  write.row_index = step.row_index;
  write.sequence = step.sequence;
  write.page_index = step.page_index;
  write.page_slot = step.page_slot;
  write.in_stored = step.in_stored;
  write.sequences = step.sequences;
  write.rope = rope_;
  write.k_pages = step.k_pages;
  write.v_pages = step.v_pages;
  RK_RETURN_IF_ERROR(kernels::qkv_write_cuda(write, stream_));
  if (is_last && step.num_logits == 0 && step.num_scored == 0) return {};

  View q(qkv.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
  q.stride = {qkv.stride[0], c.head_dim, 1, 0};
  const auto plan_of = [&](const CardPlans& plans) -> const CardPlans::Plan& {
    return plans.plans[static_cast<size_t>(plans.plan_of_layer[static_cast<size_t>(index)])];
  };
  if (!is_last || step.num_scored > 0) {
    const View o(attended_.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
    RK_RETURN_IF_ERROR(
        attend(index, q, o, step.positions, step.sequences, plan_of(step.plans), step));
    if (step.num_scored > 0) RK_RETURN_IF_ERROR(add_scores(index, q, step));
    if (is_last && step.num_logits == 0) return {};
  }
  if (is_last) {  // from here on only rows with logits matter
    num_rows = step.num_logits;
    View heads(qkv.data, DType::kBf16, {qkv.dim[0], q_width()});
    heads.stride[0] = qkv.stride[0];
    const View kept = rows_of(last_q_, num_rows);
    RK_RETURN_IF_ERROR(kernels::gather_rows_cuda(heads, step.logits_rows, kept, stream_));
    RK_RETURN_IF_ERROR(
        kernels::gather_rows_cuda(x, step.logits_rows, rows_of(last_x_, num_rows), stream_));
    q = View(kept.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
    x = rows_of(last_x_, num_rows);
    const View o(attended_.data, DType::kBf16, {num_rows, c.num_heads, c.head_dim});
    RK_RETURN_IF_ERROR(attend(index, q, o, step.logits_positions, step.logits_sequences,
                              step.logits_plan.plans[0], step));
  }
  const View attended = rows_of(attended_, num_rows);
  const bool is_sparse = step.ffn != nullptr && index >= step.ffn->dense_layers && !is_last;
  if (is_sparse) RK_RETURN_IF_ERROR(send_norms(attended));
  RK_RETURN_IF_ERROR(linear({attended, w.o.get(), bias(w.o_bias), x, true}));
  return is_sparse ? run_sparse_ffn(w, x, *step.ffn) : run_ffn(w, x);
}

std::vector<int64_t> CudaDecoder::Step::key() const {
  std::vector<int64_t> out = {num_logits, num_layers};
  const auto add = [&](const void* p) { out.push_back(reinterpret_cast<intptr_t>(p)); };
  for (const int32_t* p : {tokens, positions, row_index, sequence, page_index, page_slot,
                           logits_rows, logits_positions}) {
    add(p);
  }
  for (const void* p :
       {static_cast<const void*>(sequences), static_cast<const void*>(logits_sequences),
        static_cast<const void*>(in_stored), static_cast<const void*>(k_pages.data)}) {
    add(p);
  }
  for (const CardPlans* set : {&plans, &logits_plan}) {
    for (const CardPlans::Plan& plan : set->plans) {
      add(plan.items);
      add(plan.merges);
      out.insert(out.end(), {plan.max_items, plan.max_merges, plan.max_item_rows});
    }
    out.insert(out.end(), set->plan_of_layer.begin(), set->plan_of_layer.end());
  }
  return out;
}

Status CudaDecoder::run_step(int64_t num_rows, const Step& step) {
  if (step.num_scored > 0) {
    RK_RETURN_IF_ERROR(
        zero_on_card(mass_.data(), step.num_keys * config_.num_kv_heads * 4, stream_));
  }
  RK_RETURN_IF_ERROR(gemm_->gather_rows(*embedding_, step.tokens, num_rows, rows_of(x_, num_rows)));
  for (int i = 0; i < step.num_layers; ++i) {
    RK_RETURN_IF_ERROR(run_layer(i, num_rows, step));
  }
  if (step.num_logits == 0) return {};
  const View x = rows_of(last_x_, step.num_logits), normed = rows_of(normed_, step.num_logits);
  const View logits = rows_of(logits_, step.num_logits);
  RK_RETURN_IF_ERROR(linear_normed({.x = x,
                                    .norm = vector_view(output_norm_),
                                    .eps = config_.rms_eps,
                                    .w = output_ ? output_.get() : embedding_.get(),
                                    .y = logits,
                                    .normed = normed}));
  if (step.sample_rows == nullptr) return {};
  return kernels::sample_cuda(logits, step.sample_rows, step.sample_adjust,
                              logits_pinned_.as<int32_t>(), stream_);
}

Status CudaDecoder::hand_back(const StepInput& input, const Step& step) {
  const int64_t mass_bytes = step.num_scored > 0 ? step.num_keys * config_.num_kv_heads * 4 : 0;
  if (mass_bytes == 0 && step.num_logits == 0) return {};
  RK_RETURN_IF_ERROR(copy_from_card(mass_pinned_.data(), mass_.data(), mass_bytes, stream_));
  const auto num_rows = static_cast<int64_t>(input.logits_rows.size());
  const bool tokens = input.sampling != nullptr;  // those the kernel wrote to the host itself
  const int64_t bytes = num_rows * (tokens ? int64_t{4} : config_.vocab_size * 4);
  if (!tokens) {
    RK_RETURN_IF_ERROR(copy_from_card(logits_pinned_.data(), logits_.data, bytes, stream_));
  }
  RK_RETURN_IF_ERROR(sync_stream(stream_));
  arena_.all_done();
  const auto* mass = mass_pinned_.as<float>();
  for (int g = 0; mass_bytes > 0 && g < config_.num_kv_heads; ++g) {
    for (int64_t i = 0; i < step.num_keys; ++i) {
      input.scores->mass[static_cast<size_t>(i)] += mass[g * step.num_keys + i];
    }
  }
  if (bytes == 0) return {};
  std::memcpy(tokens ? static_cast<void*>(input.sampling->tokens) : input.logits.data,
              logits_pinned_.data(), static_cast<size_t>(bytes));
  return {};
}

// Pages of consecutive ids come in one copy.
Result<Decoder::PageRows> CudaDecoder::read_pages(const kv::PagePool& pool,
                                                  std::span<const kv::PageId> ids) const {
  const auto page = static_cast<size_t>(pool.page_rows()) * static_cast<size_t>(pool.head_dim());
  RK_CHECK(pool.memory() == Memory::kCard && pool.dtype() == DType::kBf16);
  std::vector<uint16_t> k(ids.size() * page), v(k.size());
  for (size_t i = 0, j = 0; i < ids.size(); i = j) {
    for (j = i + 1; j < ids.size() && ids[j] == ids[j - 1] + 1;) ++j;
    const auto bytes = static_cast<int64_t>((j - i) * page * 2);
    RK_RETURN_IF_ERROR(copy_from_card(k.data() + i * page, pool.k(ids[i]).data, bytes, stream_));
    RK_RETURN_IF_ERROR(copy_from_card(v.data() + i * page, pool.v(ids[i]).data, bytes, stream_));
  }
  RK_RETURN_IF_ERROR(sync_stream(stream_));
  PageRows out;
  out.k.resize(k.size());
  out.v.resize(v.size());
  dequantize(DType::kBf16, k.data(), out.k.data(), static_cast<int64_t>(k.size()));
  dequantize(DType::kBf16, v.data(), out.v.data(), static_cast<int64_t>(v.size()));
  return out;
}

void CudaDecoder::note_host_work(double begin_ms, const StepInput& input) {
  host_work_ = {now_ms() - begin_ms, arena_.take_uploaded_bytes(), 0};
  for (const StepSequence& s : input.sequences) {
    host_work_.table_bytes += int64_t{4} * s.kv->num_heads() * s.kv->num_entries();
  }
}

Status CudaDecoder::forward(const StepInput& input, kernels::Context& ctx) {
  const double begin_ms = now_ms();
  RK_TRY(const Rows rows, flatten(input));
  if (rows.size() == 0) return {};
  Step step;
  RK_RETURN_IF_ERROR(stage(input, rows, step));
  ctx.work += step.plans.work(0, config_.num_layers) + step.logits_plan.work(0, 1) + step.mass_work;
  linear_ = {};
  if (!step.is_decode) {
    RK_RETURN_IF_ERROR(run_step(rows.size(), step));
    ctx.work += linear_;
    note_host_work(begin_ms, input);
    return hand_back(input, step);
  }
  auto key = step.key();
  auto known = std::ranges::find(recorded_, key, &Recorded::key);
  if (known == recorded_.end()) {
    RK_RETURN_IF_ERROR(begin_recording(stream_));
    const Status status = run_step(rows.size(), step);
    auto graph = end_recording(stream_);  // also after an error: it ends the recording
    RK_RETURN_IF_ERROR(status);
    RK_RETURN_IF_ERROR(graph.status());
    if (recorded_.size() == kMaxRecorded) recorded_.erase(recorded_.begin());
    recorded_.push_back({std::move(key), std::move(graph).value(), linear_});
  } else {
    std::rotate(known, known + 1, recorded_.end());
  }
  ctx.work += recorded_.back().linear;
  RK_RETURN_IF_ERROR(replay(recorded_.back().graph, stream_));
  note_host_work(begin_ms, input);
  return hand_back(input, step);
}

}  // namespace rk::model
