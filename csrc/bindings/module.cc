#include "bindings/bindings.h"

PYBIND11_MODULE(_core, module) {
  module.doc() =
      "Compiled core of medusa_native: models, heads, trees, the decoding engine and the trainer.";
  medusa::register_errors(module);
  medusa::register_model(module);
  medusa::register_tree(module);
  medusa::register_engine(module);
  medusa::register_typical(module);
  medusa::register_low_rank(module);
  medusa::register_read_stream(module);
  medusa::register_trainer(module);
  medusa::register_joint_trainer(module);
}
