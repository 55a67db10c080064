#include "tensor/block_codes.h"

#include <cstring>

#include "tensor/quants.h"

namespace medusa {
namespace {

constexpr BlockFormat kQ8_0{8, 1, false}, kQ4_0{4, 1, false}, kQ4_1{4, 1, true};
constexpr BlockFormat kQ5_0{5, 1, false}, kQ5_1{5, 1, true};
constexpr BlockFormat kQ4_K{4, 8, true}, kQ5_K{5, 8, true}, kQ6_K{6, 8, false};

uint16_t load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }

// 16 bytes: the low nibbles are the first half of 32 codes.
void read_nibbles(uint8_t* codes, const uint8_t* bytes, int half) {
  for (int i = 0; i < half; ++i) {
    codes[i] = bytes[i] & 15;
    codes[i + half] = bytes[i] >> 4;
  }
}

void read_q8_0(BlockCodes& b, const uint8_t* p) {
  for (int i = 0; i < 32; ++i) b.codes[i] = static_cast<uint8_t>(p[2 + i] ^ 0x80);
}

// `high`: 4 bytes, a fifth bit for each code.
void read_q5(BlockCodes& b, const uint8_t* high, const uint8_t* nibbles) {
  read_nibbles(b.codes, nibbles, 16);
  for (int i = 0; i < 32; ++i)
    b.codes[i] |= static_cast<uint8_t>((high[i / 8] >> (i % 8) & 1) << 4);
}

// Scales and minimums of six bits each in 12 bytes.
void read_k_scales(BlockCodes& b, const uint8_t* p) {
  for (int g = 0; g < 4; ++g) {
    b.scales[g] = p[g] & 63;
    b.minimums[g] = p[g + 4] & 63;
    b.scales[g + 4] = static_cast<uint8_t>((p[g + 8] & 15) | p[g] >> 6 << 4);
    b.minimums[g + 4] = static_cast<uint8_t>(p[g + 8] >> 4 | p[g + 4] >> 6 << 4);
  }
}

void read_q4_k(BlockCodes& b, const uint8_t* p) {
  read_k_scales(b, p + 4);
  for (int pair = 0; pair < 4; ++pair) read_nibbles(b.codes + pair * 64, p + 16 + pair * 32, 32);
}

void read_q5_k(BlockCodes& b, const uint8_t* p) {
  read_k_scales(b, p + 4);
  for (int pair = 0; pair < 4; ++pair) read_nibbles(b.codes + pair * 64, p + 48 + pair * 32, 32);
  for (int i = 0; i < 256; ++i) {
    b.codes[i] |= static_cast<uint8_t>((p[16 + i % 32] >> (i / 32) & 1) << 4);
  }
}

void read_q6_k(BlockCodes& b, const uint8_t* p) {
  std::memcpy(b.scales, p + 192, 16);
  for (int i = 0; i < 256; ++i) {
    const int n = i / 128, quarter = i % 128 / 32, l = i % 32;
    const int low = p[n * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
    const int high = p[128 + n * 32 + l] >> (quarter * 2) & 3;
    b.codes[i] = static_cast<uint8_t>(low | high << 4);
  }
}

}  // namespace

const BlockFormat* block_format(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return &kQ8_0;
    case DType::q4_0:
      return &kQ4_0;
    case DType::q4_1:
      return &kQ4_1;
    case DType::q5_0:
      return &kQ5_0;
    case DType::q5_1:
      return &kQ5_1;
    case DType::q4_k:
      return &kQ4_K;
    case DType::q5_k:
      return &kQ5_K;
    case DType::q6_k:
      return &kQ6_K;
    default:
      return nullptr;
  }
}

BlockCodes read_block(const void* block, DType dtype) {
  const auto* p = static_cast<const uint8_t*>(block);
  BlockCodes b{};
  b.scale = load16(dtype == DType::q6_k ? p + 208 : p);
  if (block_format(dtype)->minimum) b.minimum = load16(p + 2);
  switch (dtype) {
    case DType::q8_0:
      read_q8_0(b, p);
      break;
    case DType::q4_0:
      read_nibbles(b.codes, p + 2, 16);
      break;
    case DType::q4_1:
      read_nibbles(b.codes, p + 4, 16);
      break;
    case DType::q5_0:
      read_q5(b, p + 2, p + 6);
      break;
    case DType::q5_1:
      read_q5(b, p + 4, p + 8);
      break;
    case DType::q4_k:
      read_q4_k(b, p);
      break;
    case DType::q5_k:
      read_q5_k(b, p);
      break;
    default:
      read_q6_k(b, p);
  }
  return b;
}

void widen_block(float* out, const BlockCodes& b, const BlockFormat& format) {
  const float d = half_to_float(b.scale), m = half_to_float(b.minimum);
  for (int i = 0; i < format.elements(); ++i) {
    const auto code = static_cast<float>(b.codes[i] - format.offset());
    if (format.groups == 1) {
      out[i] = format.minimum ? code * d + m : code * d;
    } else if (format.minimum) {
      const float scale = d * static_cast<float>(b.scales[i / 32]);
      out[i] = scale * code - m * static_cast<float>(b.minimums[i / 32]);
    } else {
      out[i] = d * static_cast<float>(static_cast<int8_t>(b.scales[i / 16])) * code;
    }
  }
}

}  // namespace medusa
