// The small world that `redknot demo` asks about: the archive of a lighthouse town that never
// existed, written for this program, so that no model knows an answer by heart. Immutable.
#pragma once

#include <string>
#include <vector>

#include "serve/prompt.h"

namespace rk::cli {

struct DemoQuestion {
  std::string text;
  std::vector<int> documents;  ///< indices into demo_documents(), in prompt order
};

/// Seven documents of about 350 tokens each.
const std::vector<serve::Document>& demo_documents();

/// The first asks in the documents' own order (what a prefix cache can serve), the others do not.
const std::vector<DemoQuestion>& demo_questions();

}  // namespace rk::cli
