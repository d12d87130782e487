#include "serve/http_wire.h"

#include <array>
#include <cstdio>

namespace rk::serve {
namespace {

void append_header(std::string& out, std::string_view name, std::string_view value) {
  const auto append = [&out](std::string_view text) {
    for (const char c : text) {
      if (c != '\r' && c != '\n' && c != '\0') out += c;
    }
  };
  append(name);
  out += ": ";
  append(value);
  out += "\r\n";
}

}  // namespace

std::string reply_head(const HttpReply& reply, const Headers& extra_headers,
                       const ReplyFraming& framing) {
  std::string out = cat("HTTP/1.1 ", reply.status, " ", http_reason(reply.status), "\r\n");
  for (const auto& [name, value] : reply.headers) append_header(out, name, value);
  for (const auto& [name, value] : extra_headers) append_header(out, name, value);
  if (framing.content_length >= 0 && reply.status != 204)
    append_header(out, "Content-Length", std::to_string(framing.content_length));
  if (framing.chunked) append_header(out, "Transfer-Encoding", "chunked");
  append_header(out, "Connection", framing.keep_alive ? "keep-alive" : "close");
  return out + "\r\n";
}

std::string http_chunk(const std::string& data) {
  std::array<char, 24> size{};
  std::snprintf(size.data(), size.size(), "%zx\r\n", data.size());
  return cat(size.data(), data, "\r\n");
}

}  // namespace rk::serve
