#include "serve/origin.h"

#include <algorithm>

#include "serve/json_request.h"

namespace rk::serve {
namespace {

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// "Example.org:80" -> "example.org", "[::1]:80" -> "::1"; "" for what is no host.
std::string host_name(std::string_view host) {
  std::string_view name = host, rest;
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    if (end == std::string_view::npos) return "";
    name = host.substr(1, end - 1);
    rest = host.substr(end + 1);
  } else if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
    name = host.substr(0, colon);
    rest = host.substr(colon);
  }
  if (!rest.empty() && !(rest[0] == ':' && is_digits(rest.substr(1)))) return "";
  if (name.ends_with('.')) name.remove_suffix(1);  // the root of the name system
  return lower_ascii(name);
}

// Scheme, host and perhaps a port, as browsers write it: no path, no user.
bool is_origin(std::string_view text) {
  const size_t scheme = text.find("://");
  if (scheme == std::string_view::npos || scheme == 0) return false;
  const std::string_view rest = text.substr(scheme + 3);
  return !rest.empty() && rest.find_first_of("/?#@ \t,*") == std::string_view::npos;
}

// What may stand in a list of header names.
bool is_name_list(std::string_view text) {
  return text.size() <= 1024 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
                  c == '_' || c == ',' || c == ' ';
         });
}

}  // namespace

bool is_loopback(std::string_view host) {
  if (host == "localhost" || host == "::1") return true;
  return host.starts_with("127.") &&
         host.find_first_not_of("0123456789.") == std::string_view::npos;
}

Result<OriginPolicy> OriginPolicy::create(const Options& options, const std::string& bound_to,
                                          bool keyless) {
  OriginPolicy out;
  out.keyless_ = keyless;
  out.any_host_ = options.allowed_hosts.empty() && !is_loopback(bound_to);
  for (const std::string& host : options.allowed_hosts) {
    if (host == "*") {
      out.any_host_ = true;
      continue;
    }
    const bool bare = host.find_first_of("/@ \t,*") == std::string::npos &&
                      (host.find(':') == std::string::npos || host.find(':') != host.rfind(':'));
    const std::string name = host.find(':') != std::string::npos && !host.starts_with('[')
                                 ? lower_ascii(host)
                                 : host_name(host);
    if (!bare || name.empty() || host.find("]:") != std::string::npos) {
      return invalid_argument("allowed host ", json_quote(host),
                              ": a host name or address without scheme, port and path is wanted");
    }
    out.hosts_.push_back(name);
  }
  for (const std::string& origin : options.cors_origins) {
    if (origin == "*") {
      out.any_origin_ = true;
    } else if (is_origin(origin) || origin == "null") {
      out.origins_.push_back(lower_ascii(origin));
    } else {
      return invalid_argument("CORS origin ", json_quote(origin),
                              ": scheme://host or scheme://host:port is wanted, without a path");
    }
  }
  return out;
}

bool OriginPolicy::knows_host(std::string_view host) const {
  if (any_host_) return true;
  const std::string name = host_name(host);
  return is_loopback(name) || std::find(hosts_.begin(), hosts_.end(), name) != hosts_.end();
}

bool OriginPolicy::allows_origin(std::string_view origin) const {
  if (origin.empty()) return false;
  return any_origin_ ||
         std::find(origins_.begin(), origins_.end(), lower_ascii(origin)) != origins_.end();
}

Status OriginPolicy::check(const HttpRequest& request) const {
  const std::string_view host = request.header("host");
  // Browsers always send it; what old clients without one can reach, they can reach in any case.
  if (!host.empty() && !knows_host(host)) {
    return invalid_argument("the Host ", json_quote(host.substr(0, 256)),
                            " is not this server's: name it with --allowed-host");
  }
  const std::string_view origin = request.header("origin");
  if (!keyless_ || request.method == "GET" || request.method == "HEAD") return {};
  const size_t scheme = origin.find("://");
  const bool own = scheme != std::string_view::npos && !host.empty() &&
                   lower_ascii(origin.substr(scheme + 3)) == lower_ascii(host);
  if (origin.empty() || own || allows_origin(origin)) return {};
  return invalid_argument("pages of ", json_quote(origin.substr(0, 256)),
                          " may not use this server: name it with --cors-origin");
}

bool OriginPolicy::is_preflight(const HttpRequest& request) const {
  return request.method == "OPTIONS" && allows_origin(request.header("origin")) &&
         !request.header("access-control-request-method").empty();
}

Headers OriginPolicy::headers(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (!any_origin_ && origins_.empty()) return {};
  Headers out = {{"Vary", "Origin"}};
  if (!allows_origin(origin)) return out;
  out.emplace_back("Access-Control-Allow-Origin", any_origin_ ? "*" : std::string(origin));
  if (!is_preflight(request)) {
    out.emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    return out;
  }
  out.emplace_back("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  const std::string_view wanted = request.header("access-control-request-headers");
  // A key is in Authorization, never in a cookie: any header may come.
  out.emplace_back("Access-Control-Allow-Headers", !wanted.empty() && is_name_list(wanted)
                                                       ? std::string(wanted)
                                                       : "Authorization, Content-Type");
  out.emplace_back("Access-Control-Max-Age", "600");
  return out;
}

}  // namespace rk::serve
