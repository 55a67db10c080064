#include "model/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "model/prefix_index.h"

namespace medusa {
namespace {

TEST(PagePool, gives_up_empty_pages_first_then_those_idle_longest) {
  PagePool pool(4);
  for (int page = 0; page < 4; ++page) pool.retain(page);
  EXPECT_EQ(pool.num_idle(), 0);
  pool.release(2, true);
  pool.release(0, true);
  pool.release(3, false);
  EXPECT_EQ(pool.num_idle(), 3);
  for (const int page : {3, 2, 0}) {
    EXPECT_EQ(pool.next_idle(), page);
    pool.retain(page);
  }
}

TEST(PagePool, a_page_is_idle_when_its_last_user_is_gone) {
  PagePool pool(2);
  pool.retain(1);
  pool.retain(1);
  pool.release(1, true);
  EXPECT_EQ(pool.num_idle(), 1);
  pool.release(1, true);
  EXPECT_EQ(pool.num_idle(), 2);
}

using Key = std::pair<PrefixIndex::Content, std::vector<int32_t>>;

PrefixIndex::PageTokens tokens_of(const Key& key) { return PrefixIndex::PageTokens(key.second); }

uint64_t colliding(PrefixIndex::Content, PrefixIndex::PageTokens tokens) { return tokens[0] % 3; }

class PrefixIndexes : public ::testing::TestWithParam<PrefixIndex::Hash> {};

// Against a map, with keys that differ in the last token or in what was before.
TEST_P(PrefixIndexes, find_what_was_inserted_and_not_erased) {
  constexpr int kPages = 37;
  PrefixIndex index(kPages, GetParam());
  std::map<Key, int32_t> pages;
  std::map<int32_t, Key> keys;
  std::mt19937 random(1);
  for (int turn = 0; turn < 20000; ++turn) {
    Key key{static_cast<int64_t>(random() % 4), std::vector<int32_t>(kPageSize, random() % 5)};
    key.second.back() = static_cast<int32_t>(random() % 3);
    const auto known = pages.find(key);
    ASSERT_EQ(index.find(key.first, tokens_of(key)), known == pages.end() ? -1 : known->second);
    const auto page = static_cast<int32_t>(random() % kPages);
    if (const auto held = keys.find(page); held != keys.end()) {
      pages.erase(held->second);
      keys.erase(held);
    }
    index.erase(page);
    EXPECT_FALSE(index.holds(page));
    if (pages.contains(key) || random() % 4 == 0) continue;
    EXPECT_GT(index.insert(page, key.first, tokens_of(key)), 0);
    pages[key] = page;
    keys[page] = key;
  }
  EXPECT_GT(pages.size(), 10u);
}

INSTANTIATE_TEST_SUITE_P(hashes, PrefixIndexes,
                         ::testing::Values(&PrefixIndex::hash_page, &colliding));

TEST(PrefixIndex, a_page_entered_again_is_new_content) {
  PrefixIndex index(2);
  const std::vector<int32_t> tokens(kPageSize, 7);
  const auto first = index.insert(0, 0, PrefixIndex::PageTokens(tokens));
  index.erase(0);
  EXPECT_NE(index.insert(0, 0, PrefixIndex::PageTokens(tokens)), first);
}

}  // namespace
}  // namespace medusa
