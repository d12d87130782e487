// The prefix cache's index: a radix tree over token ids that remembers which stored rows hold the
// K and V of a prompt's first tokens (design.md §3, spec A3: only exact rows enter).
//
// One tree per root; a root's name is the identity of everything else that shaped the rows (model,
// dtype, namespace, ...). Knows no pages: the rows are shared handles, released with their last
// share. Use is ordered by a logical clock, no time is read. Engine thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace rk::kv {

/// Stored rows, as far as the tree cares: something to keep alive.
class PrefixRows {
 public:
  virtual ~PrefixRows() = default;
};

class PrefixTree {
 public:
  /// Rows [begin, end) of `rows`, in that object's own numbering, one per token.
  struct Piece {
    std::shared_ptr<const PrefixRows> rows;
    int32_t begin = 0;
    int32_t end = 0;
    int32_t num_rows() const { return end - begin; }
  };
  struct Match {
    int64_t num_tokens = 0;     ///< length of the longest stored prefix
    std::vector<Piece> pieces;  ///< cover exactly those tokens, in order
  };

  PrefixTree();
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  /// Longest stored prefix of `tokens` under `root`; marks what it found as used now. O(length).
  Match match(std::string_view root, std::span<const int32_t> tokens);
  /// match() without marking anything: for planning and tests.
  Match peek(std::string_view root, std::span<const int32_t> tokens) const;

  /// Stores `tokens` -> rows. Where a prefix is stored already, the older rows stay and the given
  /// ones are dropped; returns how many tokens were new. O(length + pieces).
  /// Errors: kInvalidArgument where `pieces` do not cover exactly `tokens`; nothing is stored then.
  Result<int64_t> insert(std::string_view root, std::span<const int32_t> tokens,
                         std::span<const Piece> pieces);

  /// Says whether a stored stretch may go: false keeps it (rows some running request still shares:
  /// dropping those frees nothing).
  using MayEvict = std::function<bool(std::span<const Piece>)>;
  /// Drops least recently used leaves, whole, until at least `num_tokens` tokens are gone or no
  /// leaf may go; returns how many went. Memory comes back once no request shares the rows. O(nodes
  /// + evicted log nodes).
  int64_t evict(int64_t num_tokens, const MayEvict& may_evict = {});
  /// Drops everything under one root, or everything.
  void erase(std::string_view root);
  void clear();

  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_nodes() const { return num_nodes_; }  ///< roots not counted

 private:
  struct Node;
  struct Roots;
  struct Walk;
  static Walk walk(Node& root, std::span<const int32_t> tokens);
  static Match collect(const Walk& walk);
  Node* find_root(std::string_view root) const;
  void split(Node& node, size_t length);

  std::unique_ptr<Roots> roots_;
  int64_t clock_ = 0;
  int64_t num_tokens_ = 0;
  int64_t num_nodes_ = 0;
};

}  // namespace rk::kv
