#include "base/check.h"
#include "decode/accept.h"
#include "decode/synthetic_accept.h"
#include "decode/typical.h"

namespace medusa {

std::unique_ptr<Acceptance> make_acceptance(const EngineOptions& options, const Tree& tree,
                                            int max_logits_rows) {
  const bool typical = options.acceptance_method == AcceptanceMethod::typical;
  if (options.synthetic_acceptance_length != 0) {
    check(!typical, "synthetic_acceptance_length: has no meaning with acceptance_method typical");
    return std::make_unique<SyntheticAcceptance>(options, tree);
  }
  if (!typical) return std::make_unique<ExactAcceptance>(options.max_num_seqs);
  return std::make_unique<TypicalAcceptance>(options, tree.depth(), max_logits_rows);
}

}  // namespace medusa
