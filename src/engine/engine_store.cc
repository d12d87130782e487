// Documents at rest (kv/quant_rows.h): how the store keeps their rows, and the pages that a prompt
// reads them from.
#include <algorithm>
#include <cstring>
#include <limits>

#include "base/clock.h"
#include "base/log.h"
#include "engine/engine.h"

namespace rk::engine {

// Rows at rest are no pages: a bound of their own keeps them from taking all memory. As much as the
// pool, which was cut to this machine and these contexts, at least doubles the documents.
Status Engine::create_store(const Options& options) {
  const model::ModelConfig& c = config();
  max_variants_ = options.max_variants;
  store_format_ = options.store_format;
  if (options.store_bytes < 0) {
    return invalid_argument("store_bytes: ", options.store_bytes, " is negative");
  }
  if (!keeps_codes()) {
    store_bytes_ = std::numeric_limits<int64_t>::max();
  } else {
    RK_RETURN_IF_ERROR(kv::check_row_format(store_format_, c.head_dim));
    RK_RETURN_IF_ERROR(load_key_bias());
    const int64_t least = kv::quant_page_bytes(store_format_, pool_->page_rows(), c.head_dim) *
                          c.num_layers * c.num_kv_heads;
    if (options.store_bytes > 0 && options.store_bytes < least) {
      return invalid_argument("store_bytes: ", options.store_bytes, " for documents at rest, ",
                              pool_->page_rows(), " rows of one take ", least);
    }
    if (!options.device.is_cuda()) {  // a card's were planned with all that lies there
      const int64_t have = available_memory_bytes();
      store_bytes_ = options.store_bytes > 0
                         ? options.store_bytes
                         : std::min(pool_->num_pages() * pool_->page_bytes(), have / 2);
      if (store_bytes_ > have) {
        return exhausted("store_bytes: ", store_bytes_ >> 20, " MiB for documents at rest, ",
                         have >> 20, " MiB of memory free");
      }
    }
  }
  segments_ = kv::SegmentStore(max_variants_, store_bytes_);
  return {};
}

Status Engine::load_key_bias() {
  coder_.ctx = &ctx_;
  coder_.rope = decoder_->rope();
  coder_.stream = decoder_->stream();
  std::vector<float> values;
  for (int l = 0; l < config().num_layers; ++l) {
    const auto layer = decoder_->key_bias(l);
    values.insert(values.end(), layer.begin(), layer.end());
  }
  if (values.empty()) return {};
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  RK_TRY(key_bias_, Buffer::allocate(bytes, pool_->memory()));
  coder_.key_bias = key_bias_.as<float>();
  if (pool_->memory() == Memory::kHost) {
    std::memcpy(key_bias_.data(), values.data(), static_cast<size_t>(bytes));
    return {};
  }
  RK_RETURN_IF_ERROR(copy_to_card(key_bias_.data(), values.data(), bytes, coder_.stream));
  return sync_stream(coder_.stream);
}

// What is spliced is what is kept, also in the request that computed it: hit and miss read the same
// values.
Result<std::shared_ptr<const kv::Segment>> Engine::as_stored(std::shared_ptr<kv::Segment> segment) {
  if (keeps_codes()) {
    RK_RETURN_IF_ERROR(note_failure(decoder_->run_noted(*pool_)));
    auto at_rest = kv::QuantRows::quantise(*pool_, *segment->rows, store_format_, coder_);
    RK_RETURN_IF_ERROR(note_failure(at_rest.status()));
    segment->at_rest = std::move(at_rest).value();
    segment->rows.reset();
    segment->num_bytes = segment->at_rest->num_bytes();
    segment->context.exact = false;
  } else {
    segment->num_bytes = segment->rows->num_pages() * pool_->page_bytes();
  }
  return std::shared_ptr<const kv::Segment>(std::move(segment));
}

void Engine::store(const kv::Digest& document, std::shared_ptr<const kv::Segment> segment) {
  const int64_t bytes = segment->num_bytes;
  if (segments_.insert(document, std::move(segment))) return;
  log::info("engine: a document of ", bytes, " bytes is not kept: ", segments_.num_bytes(), " of ",
            store_bytes_, " bytes for documents at rest are held by others");
}

Result<std::shared_ptr<const kv::FrameRows>> Engine::rows_of(const kv::Digest& document,
                                                             const kv::Segment& segment, Run& run) {
  if (segment.rows != nullptr) return segment.rows;
  if (auto known = segments_.expanded(document, &segment); known != nullptr) return known;
  RK_RETURN_IF_ERROR(make_room(segment.at_rest->num_pages()));
  const double begin_ms = now_ms();
  RK_RETURN_IF_ERROR(note_failure(decoder_->run_noted(*pool_)));
  auto rows = segment.at_rest->expand(*pool_, coder_);
  RK_RETURN_IF_ERROR(note_failure(rows.status()));
  run.expand_ms += now_ms() - begin_ms;
  segments_.keep_expanded(document, &segment, *rows);
  return rows;
}

}  // namespace rk::engine
