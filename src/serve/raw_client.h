// A client for tests that sends any bytes at all and reads what comes, over loopback.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>

namespace rk::serve {

struct RawReply {
  int status = 0;  ///< 0: no answer
  std::string head, body;
  std::string header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == std::string::npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class RawClient {
 public:
  explicit RawClient(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  /// False when the peer has closed before everything was sent.
  bool send(std::string_view data) {
    while (!data.empty()) {
      const ssize_t n = ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      data.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  void half_close() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  /// Reads more bytes into the buffer; false at the end, on an error or after `timeout_ms`.
  bool fill(int timeout_ms = 20000) {
    pollfd poll{fd_, POLLIN, 0};
    if (::poll(&poll, 1, timeout_ms) <= 0) return false;
    char data[65536];
    const ssize_t n = ::recv(fd_, data, sizeof(data), 0);
    if (n <= 0) return false;
    buffer_.append(data, static_cast<size_t>(n));
    return true;
  }
  /// Everything until the peer closes.
  std::string read_all() {
    while (fill()) {
    }
    return std::move(buffer_);
  }
  /// One answer, its body by Content-Length or chunks; interim 1xx answers are skipped.
  RawReply read_reply(int timeout_ms = 20000, bool head_only = false) {
    RawReply reply;
    do {
      size_t end = 0;
      while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
        if (!fill(timeout_ms)) return {};
      }
      reply.head = buffer_.substr(0, end + 2);
      buffer_.erase(0, end + 4);
      reply.status = std::atoi(reply.head.c_str() + 9);
    } while (reply.status < 200);
    if (head_only) return reply;
    if (reply.header("Transfer-Encoding") == "chunked") {
      for (;;) {
        size_t line = 0;
        while ((line = buffer_.find("\r\n")) == std::string::npos) {
          if (!fill(timeout_ms)) return reply;
        }
        const size_t size = std::strtoul(buffer_.c_str(), nullptr, 16);
        while (buffer_.size() < line + 2 + size + 2) {
          if (!fill(timeout_ms)) return reply;
        }
        reply.body += buffer_.substr(line + 2, size);
        buffer_.erase(0, line + 2 + size + 2);
        if (size == 0) return reply;
      }
    }
    const size_t size = std::strtoul(reply.header("Content-Length").c_str(), nullptr, 10);
    while (buffer_.size() < size && fill(timeout_ms)) {
    }
    reply.body = buffer_.substr(0, size);
    buffer_.erase(0, std::min(size, buffer_.size()));
    return reply;
  }
  RawReply request(std::string_view method, std::string_view target, std::string_view body = "",
                   std::string_view headers = "") {
    std::string text(method);
    text.append(" ").append(target).append(" HTTP/1.1\r\nHost: localhost\r\n").append(headers);
    text.append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n");
    send(text.append(body));
    return read_reply(20000, method == "HEAD");
  }

 private:
  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

inline RawReply get(int port, std::string_view target, std::string_view headers = "") {
  return RawClient(port).request("GET", target, "", headers);
}
inline RawReply post(int port, std::string_view target, std::string_view body,
                     std::string_view headers = "") {
  return RawClient(port).request("POST", target, body, headers);
}

}  // namespace rk::serve
