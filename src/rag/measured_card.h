// From a bench to the card that the gate reads (spec A8): one entry per mode and length over all
// generated tasks of that length together, and one over the user's samples (decision 0010 and
// 0011).
#pragma once

#include <string>
#include <vector>

#include "engine/card.h"
#include "rag/results.h"
#include "rag/summary.h"

namespace rk::rag {

/// `summary` is of `results`. Modes that are exact by construction (dense, prefix) get no entry:
/// the gate needs none for them. A mode without a divergence (every dense answer was empty) gets
/// none either. Pure.
engine::Card measured_card(const Summary& summary, const std::vector<const SampleResult*>& results,
                           const engine::CardIdentity& identity, engine::Fit fit);

}  // namespace rk::rag
