#pragma once

#include <span>
#include <string_view>

namespace medusa {

/// A tree published with Medusa; `paths` spells it, best path first.
struct StockTree {
  std::string_view name;
  std::string_view paths;
};

std::span<const StockTree> stock_trees();

}  // namespace medusa
