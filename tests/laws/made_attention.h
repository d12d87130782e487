// A tiny model in which who looks at what is known, for tests only.
#pragma once

#include <string>
#include <vector>

#include "tiny_model.h"

namespace rk::engine::tiny {

// A model whose attention is made: askers of one kind look for marks of the same kind, and every
// other token carries neither. The embedding's dimension k marks kind k/2: even for the mark, odd
// for the asker; keys and queries read them into the slowest rotating pairs.
enum Kind { kAsked, kElsewhere };
inline int32_t mark(Kind kind) { return kVocab - 4 + 2 * kind; }
inline int32_t asker(Kind kind) { return kVocab - 3 + 2 * kind; }

inline void make_attention(const std::string& name, std::vector<float>& values) {
  const auto at = [&](int row, int column) -> float& {
    return values[static_cast<size_t>(row * kHidden + column)];
  };
  if (name == "token_embd.weight") {
    for (int id = 0; id < kVocab; ++id) {
      for (int d = 0; d < 4; ++d) at(id, d) = id == kVocab - 4 + d ? 30.0F : 0.0F;
    }
  }
  const bool q = name.find("attn_q.weight") != std::string::npos;
  if (!q && name.find("attn_k.weight") == std::string::npos) return;
  for (int h = 0; h < (q ? kHeads : kKvHeads); ++h) {
    for (const Kind kind : {kAsked, kElsewhere}) {
      const int row = h * kHeadDim + kHeadDim / 2 - 1 - kind;
      for (int d = 0; d < kHidden; ++d) at(row, d) = d == 2 * kind + (q ? 1 : 0) ? 3.0F : 0.0F;
    }
  }
}

}  // namespace rk::engine::tiny
