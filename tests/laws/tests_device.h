// The device the laws are run on, and what follows from its arithmetic.
#pragma once

#include <gtest/gtest.h>

#include "tensor/device.h"

namespace rk {

/// Of --device; the CPU by default.
const Device& test_device();

/// Logits that are the same but for the order of sums, over the largest logit: f32 on the CPU, bf16
/// activations on a card.
inline double same_within() { return test_device().is_cuda() ? 2e-2 : 1e-4; }

}  // namespace rk
