#pragma once

#include <cstdint>

#include "medusa/model.h"

namespace medusa {

/// The number a code of E4M3 without infinities stands for (Micikevicius et al. 2022, "FP8 Formats
/// for Deep Learning"): sign, four bits of exponent with a bias of 7, three of fraction.
float float8_to_float(uint8_t code);

/// The scale of element (row, column) of an F8_E4M3 matrix.
float float8_scale(const HostTensor& tensor, int64_t row, int64_t column);

/// in_features elements of a row of an F8_E4M3 matrix, widened.
void widen_float8_row(float* out, const HostTensor& tensor, int64_t row);

/// Whether all of a row are finite when rounded to bf16.
bool float8_row_fits_bf16(const HostTensor& tensor, int64_t row);

}  // namespace medusa
