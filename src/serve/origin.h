// Which names and web pages may reach the server: the Host header against DNS rebinding, the Origin
// header for CORS. Immutable, thread-safe.
//
// A page that a user visits can make their browser send requests to loopback. It cannot choose the
// Host header, so a server on loopback answers only to names that mean loopback; and it cannot hide
// its Origin, so a server without keys does no work for pages that it was not told about.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serve/http.h"

namespace rk::serve {

/// localhost, ::1 or 127.*.
bool is_loopback(std::string_view host);

class OriginPolicy {
 public:
  struct Options {
    std::vector<std::string> allowed_hosts;  ///< further names in Host, or "*" for all
    std::vector<std::string> cors_origins;   ///< "https://app.example", or "*" for all
  };
  /// `bound_to`: the address listened on. Beyond loopback every Host is good, unless allowed_hosts
  /// says which. `keyless`: requests of unknown pages are refused.
  /// Errors: kInvalidArgument for a host with a port or a path, and for what is no origin.
  static Result<OriginPolicy> create(const Options& options, const std::string& bound_to,
                                     bool keyless);

  /// Not ok: the request is to be refused with 403, and this is why.
  Status check(const HttpRequest& request) const;
  /// A browser asking whether it may send a request from an allowed page.
  bool is_preflight(const HttpRequest& request) const;
  /// CORS headers of the answer to `request`; none for pages that are not allowed.
  Headers headers(const HttpRequest& request) const;

 private:
  bool knows_host(std::string_view host) const;
  bool allows_origin(std::string_view origin) const;

  std::vector<std::string> hosts_, origins_;
  bool any_host_ = false, any_origin_ = false, keyless_ = false;
};

}  // namespace rk::serve
