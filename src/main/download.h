// One file over HTTP(S) onto disk: resumed where a part is there and the server still has the same
// file, checked against size and SHA-256, and in place only when whole. Redirects go to http and
// https only, and never from https to http. One thread; two processes on one file exclude each
// other.
//
// While it runs, `path`.part holds the bytes and `path`.part.json says of which URL, ETag and size.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "main/progress.h"

namespace rk::cli {

struct DownloadOptions {
  std::string url;
  std::string path;             ///< where it ends up; its folder is made
  std::string sha256;           ///< wanted digest, hex; empty: what the server names, if any
  int64_t expected_bytes = -1;  ///< wanted size; -1: unknown
  int64_t max_bytes = int64_t{1} << 40;  ///< refuses more than this
  int retries = 5;                       ///< after a cut connection, each resuming
};

struct Downloaded {
  std::string sha256;     ///< of the whole file, hex
  bool verified = false;  ///< it was compared with a wanted digest
  int64_t bytes = 0;
  int64_t resumed_at = 0;  ///< bytes that were there already
};

/// Errors: kNotFound (404), kUnavailable (network, server), kInvalidArgument (URL, refused
/// redirect, other 4xx), kExhausted (disk, size), kDataLoss (digest, size; the part is removed).
Result<Downloaded> download(const DownloadOptions& options, Progress& progress);

/// A small document (an index, a listing). Errors as download; kExhausted above `max_bytes`.
Result<std::string> fetch_text(const std::string& url, int64_t max_bytes);

/// SHA-256 of a file, hex.
Result<std::string> file_sha256(const std::string& path);

/// Bytes that may still be written in the folder of `path`.
int64_t free_disk_bytes(const std::string& path);

}  // namespace rk::cli
