#include "base/shared_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

namespace medusa {
namespace {

struct Block {
  unsigned char* data;
  size_t bytes;
  unsigned char mark;
};

bool all_bytes_are(const Block& block, unsigned char value) {
  return std::all_of(block.data, block.data + block.bytes,
                     [value](unsigned char byte) { return byte == value; });
}

TEST(SharedPages, keep_blocks_apart_in_any_order_of_release) {
  std::mt19937 random(1);
  std::vector<Block> blocks;
  for (int i = 0; i < 400; ++i) {
    const size_t bytes = 1 + random() % (i % 20 == 0 ? 9 << 20 : 1 << 18);
    Block block{static_cast<unsigned char*>(map_shared_pages(bytes)), bytes,
                static_cast<unsigned char>(i)};
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.data) % 64, 0u);
    EXPECT_TRUE(all_bytes_are(block, 0));
    std::memset(block.data, block.mark, bytes);
    blocks.push_back(block);
    if (random() % 2 == 0) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      EXPECT_TRUE(all_bytes_are(blocks.back(), blocks.back().mark));
      unmap_shared_pages(blocks.back().data, blocks.back().bytes);
      blocks.pop_back();
    }
  }
  for (const Block& block : blocks) {
    EXPECT_TRUE(all_bytes_are(block, block.mark));
    unmap_shared_pages(block.data, block.bytes);
  }
}

TEST(SharedPages, nothing_takes_nothing) {
  EXPECT_EQ(map_shared_pages(0), nullptr);
  unmap_shared_pages(nullptr, 0);
}

}  // namespace
}  // namespace medusa
