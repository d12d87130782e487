#include "kv/prefix_tree.h"

#include <algorithm>
#include <map>
#include <queue>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace rk::kv {

/// An edge's tokens and the rows behind them. A root has none.
struct PrefixTree::Node {
  std::vector<int32_t> tokens;
  std::vector<Piece> pieces;  ///< cover exactly `tokens`
  Node* parent = nullptr;
  std::unordered_map<int32_t, std::unique_ptr<Node>> children;  ///< by first token
  int64_t last_use = 0;
};

struct PrefixTree::Roots {
  std::map<std::string, std::unique_ptr<Node>, std::less<>> by_name;
};

/// Where the longest stored prefix ends: `path` are the nodes after the root, all but the last
/// matched whole, the last for `in_last` tokens.
struct PrefixTree::Walk {
  std::vector<Node*> path;
  size_t in_last = 0;
  size_t matched = 0;
};

namespace {

/// Moves the pieces behind the first `length` rows from `pieces` to the result.
std::vector<PrefixTree::Piece> cut(std::vector<PrefixTree::Piece>& pieces, size_t length) {
  size_t i = 0;
  auto left = static_cast<int64_t>(length);
  while (i < pieces.size() && pieces[i].num_rows() <= left) left -= pieces[i++].num_rows();
  std::vector<PrefixTree::Piece> tail;
  if (left > 0) {
    PrefixTree::Piece& across = pieces[i];
    tail.push_back({across.rows, across.begin + static_cast<int32_t>(left), across.end});
    across.end = tail.back().begin;
    ++i;
  }
  const auto rest = pieces.begin() + static_cast<std::ptrdiff_t>(i);
  tail.insert(tail.end(), std::make_move_iterator(rest), std::make_move_iterator(pieces.end()));
  pieces.erase(rest, pieces.end());
  return tail;
}

/// Appends the first `length` rows of `pieces`; stretches of one object that meet become one.
void append(std::vector<PrefixTree::Piece>& out, std::span<const PrefixTree::Piece> pieces,
            size_t length) {
  auto left = static_cast<int64_t>(length);
  for (const PrefixTree::Piece& p : pieces) {
    if (left == 0) return;
    const auto take = static_cast<int32_t>(std::min<int64_t>(left, p.num_rows()));
    left -= take;
    if (!out.empty() && out.back().rows == p.rows && out.back().end == p.begin) {
      out.back().end += take;
    } else {
      out.push_back({p.rows, p.begin, p.begin + take});
    }
  }
}

}  // namespace

PrefixTree::PrefixTree() : roots_(std::make_unique<Roots>()) {}
PrefixTree::~PrefixTree() { clear(); }

PrefixTree::Node* PrefixTree::find_root(std::string_view root) const {
  const auto it = roots_->by_name.find(root);
  return it == roots_->by_name.end() ? nullptr : it->second.get();
}

PrefixTree::Walk PrefixTree::walk(Node& root, std::span<const int32_t> tokens) {
  Walk out;
  Node* node = &root;
  while (out.matched < tokens.size()) {
    const auto it = node->children.find(tokens[out.matched]);
    if (it == node->children.end()) break;
    node = it->second.get();
    const auto rest = tokens.subspan(out.matched);
    const size_t most = std::min(rest.size(), node->tokens.size());
    const auto differs = std::mismatch(
        rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(most), node->tokens.begin());
    out.path.push_back(node);
    out.in_last = static_cast<size_t>(differs.first - rest.begin());
    out.matched += out.in_last;
    if (out.in_last < node->tokens.size()) break;
  }
  return out;
}

PrefixTree::Match PrefixTree::collect(const Walk& walk) {
  Match out;
  out.num_tokens = static_cast<int64_t>(walk.matched);
  for (const Node* node : walk.path) {
    append(out.pieces, node->pieces, node == walk.path.back() ? walk.in_last : node->tokens.size());
  }
  return out;
}

PrefixTree::Match PrefixTree::peek(std::string_view root, std::span<const int32_t> tokens) const {
  Node* top = find_root(root);
  return top == nullptr ? Match{} : collect(walk(*top, tokens));
}

PrefixTree::Match PrefixTree::match(std::string_view root, std::span<const int32_t> tokens) {
  Node* top = find_root(root);
  if (top == nullptr) return {};
  const Walk found = walk(*top, tokens);
  ++clock_;
  for (Node* node : found.path) node->last_use = clock_;
  return collect(found);
}

void PrefixTree::split(Node& node, size_t length) {
  RK_CHECK(length > 0 && length < node.tokens.size());
  auto tail = std::make_unique<Node>();
  const auto middle = node.tokens.begin() + static_cast<std::ptrdiff_t>(length);
  tail->tokens.assign(middle, node.tokens.end());
  node.tokens.erase(middle, node.tokens.end());
  tail->pieces = cut(node.pieces, length);
  tail->children = std::exchange(node.children, {});
  for (auto& child : tail->children) child.second->parent = tail.get();
  tail->parent = &node;
  tail->last_use = node.last_use;
  const int32_t first = tail->tokens.front();
  node.children.emplace(first, std::move(tail));
  ++num_nodes_;
}

Result<int64_t> PrefixTree::insert(std::string_view root, std::span<const int32_t> tokens,
                                   std::span<const Piece> pieces) {
  int64_t rows = 0;
  for (const Piece& p : pieces) {
    if (p.rows == nullptr || p.begin < 0 || p.end <= p.begin) {
      return invalid_argument("prefix tree: a piece of rows [", p.begin, ", ", p.end,
                              p.rows ? ")" : ") without rows");
    }
    rows += p.num_rows();
  }
  if (rows != static_cast<int64_t>(tokens.size())) {
    return invalid_argument("prefix tree: ", rows, " rows for ", tokens.size(), " tokens");
  }
  if (tokens.empty()) return int64_t{0};
  auto it = roots_->by_name.find(root);
  if (it == roots_->by_name.end()) {
    it = roots_->by_name.emplace(std::string(root), std::make_unique<Node>()).first;
  }
  const Walk found = walk(*it->second, tokens);
  Node* node = found.path.empty() ? it->second.get() : found.path.back();
  const size_t num_new = tokens.size() - found.matched;
  if (num_new > 0 && !found.path.empty() && found.in_last < node->tokens.size()) {
    split(*node, found.in_last);
  }
  ++clock_;
  for (Node* used : found.path) used->last_use = clock_;
  if (num_new == 0) return int64_t{0};

  auto leaf = std::make_unique<Node>();
  const auto fresh = tokens.subspan(found.matched);
  leaf->tokens.assign(fresh.begin(), fresh.end());
  std::vector<Piece> all(pieces.begin(), pieces.end());
  leaf->pieces = cut(all, found.matched);
  leaf->parent = node;
  leaf->last_use = clock_;
  node->children.emplace(fresh.front(), std::move(leaf));
  ++num_nodes_;
  num_tokens_ += static_cast<int64_t>(num_new);
  return static_cast<int64_t>(num_new);
}

int64_t PrefixTree::evict(int64_t num_tokens, const MayEvict& may_evict) {
  const auto newer = [](const Node* a, const Node* b) { return a->last_use > b->last_use; };
  std::priority_queue<Node*, std::vector<Node*>, decltype(newer)> leaves(newer);
  std::vector<Node*> open;
  for (const auto& [name, top] : roots_->by_name) open.push_back(top.get());
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    if (node->children.empty() && node->parent != nullptr) leaves.push(node);
    for (const auto& child : node->children) open.push_back(child.second.get());
  }
  int64_t gone = 0;
  while (gone < num_tokens && !leaves.empty()) {
    Node* leaf = leaves.top();
    leaves.pop();
    if (may_evict && !may_evict(leaf->pieces)) continue;
    gone += static_cast<int64_t>(leaf->tokens.size());
    Node* parent = leaf->parent;
    const int32_t first = leaf->tokens.front();
    parent->children.erase(first);
    --num_nodes_;
    if (parent->children.empty() && parent->parent != nullptr) leaves.push(parent);
  }
  num_tokens_ -= gone;
  std::erase_if(roots_->by_name, [](const auto& r) { return r.second->children.empty(); });
  return gone;
}

void PrefixTree::erase(std::string_view root) {
  const auto it = roots_->by_name.find(root);
  if (it == roots_->by_name.end()) return;
  // Level by level from a list: a chain of a million nodes must not recurse in destructors.
  std::vector<std::unique_ptr<Node>> open;
  open.push_back(std::move(it->second));
  roots_->by_name.erase(it);
  while (!open.empty()) {
    const std::unique_ptr<Node> node = std::move(open.back());
    open.pop_back();
    if (node->parent != nullptr) {
      --num_nodes_;
      num_tokens_ -= static_cast<int64_t>(node->tokens.size());
    }
    for (auto& child : node->children) open.push_back(std::move(child.second));
  }
}

void PrefixTree::clear() {
  while (!roots_->by_name.empty()) erase(std::string(roots_->by_name.begin()->first));
}

}  // namespace rk::kv
