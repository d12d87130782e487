// tokenizer.json from outside, then text through it: no crash, ids in range, streams equal decode.
// The input is the file, a zero byte, the text.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "text/stream_decoder.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string_view text =
      zero == std::string_view::npos ? "a b<s>\xE4\xBD 12" : input.substr(zero + 1);
  const auto tokenizer = rk::text::Tokenizer::from_json(input.substr(0, zero), "", "");
  if (!tokenizer.ok()) return 0;
  for (const bool trusted : {false, true}) {
    const std::vector<int32_t> ids = (*tokenizer)->encode(text, trusted, true);
    rk::text::StreamDecoder decoder(**tokenizer, trusted);
    std::string streamed;
    for (const int32_t id : ids) {
      RK_CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
      streamed += decoder.push(id);
    }
    RK_CHECK(streamed + decoder.finish() == (*tokenizer)->decode(ids, trusted));
  }
  return 0;
}
