#include "medusa/tree.h"

#include <algorithm>
#include <functional>
#include <map>

#include "base/check.h"
#include "decode/stock_trees.h"

namespace medusa {
namespace {

using Path = std::vector<int>;

std::string path_text(const Path& path) {
  std::string out = "[";
  for (size_t i = 0; i < path.size(); ++i) out += (i ? ", " : "") + std::to_string(path[i]);
  return out + "]";
}

bool shorter_then_smaller(const Path& a, const Path& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

const StockTree& find_stock(std::string_view name) {
  for (const StockTree& tree : stock_trees()) {
    if (tree.name == name) return tree;
  }
  throw InvalidArgument(text("stock tree: expected one of stock_names(), found \"", name, "\""));
}

Path parse_path(std::string_view digits) {
  Path path;
  for (const char digit : digits) path.push_back(digit - '0');
  return path;
}

}  // namespace

Tree::Tree(std::vector<Path> paths) : paths_(std::move(paths)) {
  check(!paths_.empty(), "medusa_choices: expected at least one path, found none");
  check(paths_.size() < kMaxNodes, "medusa_choices: expected at most ", kMaxNodes - 1,
        " paths, found ", paths_.size());
  const std::vector<Path> given = paths_;
  std::sort(paths_.begin(), paths_.end(), shorter_then_smaller);
  std::map<Path, int> nodes{{Path{}, 0}};
  for (const Path& path : paths_) {
    check(!path.empty(), "medusa_choices: expected paths of at least one rank, found []");
    check(path.back() >= 0, "medusa_choices: expected ranks from 0, found ", path_text(path));
    const Path prefix(path.begin(), path.end() - 1);
    const auto parent = nodes.find(prefix);
    check(parent != nodes.end(), "medusa_choices: ", path_text(path), " needs its prefix ",
          path_text(prefix));
    check(nodes.emplace(path, size()).second, "medusa_choices: ", path_text(path),
          " is there twice");
    add_child(parent->second, path.back());
  }
  remember_order(given);
}

void Tree::remember_order(const std::vector<Path>& given) {
  std::vector<bool> placed(size());
  const std::function<void(int)> place = [&](int node) {
    if (node == 0 || placed[node]) return;
    place(parents_[node]);
    placed[node] = true;
    order_.push_back(node);
  };
  for (const Path& path : given) {
    const auto at = std::lower_bound(paths_.begin(), paths_.end(), path, shorter_then_smaller);
    place(static_cast<int>(at - paths_.begin()) + 1);
  }
}

void Tree::add_child(int parent, int rank) {
  if (num_children_[parent]++ == 0) first_child_[parent] = size();
  parents_.push_back(parent);
  depths_.push_back(depths_[parent] + 1);
  ranks_.push_back(rank);
  first_child_.push_back(0);
  num_children_.push_back(0);
  depth_ = std::max(depth_, depths_.back());
  max_rank_ = std::max(max_rank_, rank);
}

Tree Tree::subtree(std::span<const int> nodes) const {
  std::vector<Path> paths;
  for (const int node : nodes) {
    if (node > 0) paths.push_back(paths_[node - 1]);
  }
  return paths.empty() ? Tree() : Tree(std::move(paths));
}

Tree Tree::root_only() { return Tree(); }

Tree Tree::chain(int depth) {
  check(depth >= 1 && depth < kMaxNodes, "chain: expected a depth from 1 to ", kMaxNodes - 1,
        ", found ", depth);
  std::vector<Path> paths;
  for (int i = 1; i <= depth; ++i) paths.emplace_back(i, 0);
  return Tree(std::move(paths));
}

Tree Tree::stock(std::string_view name) { return Tree(stock_paths(name)); }

std::vector<std::string> Tree::stock_names() {
  std::vector<std::string> names;
  for (const StockTree& tree : stock_trees()) names.emplace_back(tree.name);
  return names;
}

std::vector<Path> Tree::stock_paths(std::string_view name) {
  std::vector<Path> paths;
  std::string_view rest = find_stock(name).paths;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(' '), rest.size());
    paths.push_back(parse_path(rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return paths;
}

std::vector<int> Tree::tree_indices(int top_k) const {
  std::vector<int> indices(size(), 0);
  for (int node = 1; node < size(); ++node) {
    indices[node] = ranks_[node] + top_k * (depths_[node] - 1) + 1;
  }
  return indices;
}

std::vector<std::vector<int>> Tree::attention_mask() const {
  std::vector<std::vector<int>> mask(size(), std::vector<int>(size(), 0));
  for (int node = 0; node < size(); ++node) {
    for (int seen = node; seen >= 0; seen = parents_[seen]) mask[node][seen] = 1;
  }
  return mask;
}

std::vector<std::vector<int>> Tree::retrieve_indices() const {
  std::vector<std::vector<int>> rows;
  for (int node = size() - 1; node >= 0; --node) {
    if (num_children_[node] > 0) continue;
    auto& row = rows.emplace_back(depth_ + 1, -1);
    for (int n = node; n >= 0; n = parents_[n]) row[depths_[n]] = n;
  }
  return rows;
}

}  // namespace medusa
