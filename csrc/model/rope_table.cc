#include "model/rope_table.h"

#include <cmath>
#include <numbers>

namespace medusa {
namespace {

// Long wavelengths are divided by the factor, short ones kept, those between blended.
double scale_llama3(double frequency, const ModelConfig& config) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double original = config.rope_original_max_position_embeddings;
  if (wavelength < original / config.rope_high_freq_factor) return frequency;
  if (wavelength > original / config.rope_low_freq_factor) return frequency / config.rope_factor;
  const double smooth = (original / wavelength - config.rope_low_freq_factor) /
                        (config.rope_high_freq_factor - config.rope_low_freq_factor);
  return (1 - smooth) * frequency / config.rope_factor + smooth * frequency;
}

double scale(double frequency, const ModelConfig& config) {
  switch (config.rope_scaling) {
    case RopeScaling::linear:
      return frequency / config.rope_factor;
    case RopeScaling::llama3:
      return scale_llama3(frequency, config);
    case RopeScaling::none:
      break;
  }
  return frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const ModelConfig& config) {
  std::vector<double> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double base = std::pow(double{config.rope_theta}, -2.0 * i / config.head_dim);
    frequencies[i] =
        config.rope_freq_factors.empty() ? scale(base, config) : base / config.rope_freq_factors[i];
  }
  return frequencies;
}

RopeTable::RopeTable(Backend& backend, const ModelConfig& config, int num_positions)
    : interleaved_(config.rope_interleaved) {
  const std::vector<double> frequencies = rope_frequencies(config);
  std::vector<float> cos, sin;
  cos.reserve(num_positions * frequencies.size());
  sin.reserve(num_positions * frequencies.size());
  for (int position = 0; position < num_positions; ++position) {
    for (const double frequency : frequencies) {
      cos.push_back(static_cast<float>(std::cos(position * frequency)));
      sin.push_back(static_cast<float>(std::sin(position * frequency)));
    }
  }
  cos_ = DeviceVector(backend, cos);
  sin_ = DeviceVector(backend, sin);
}

}  // namespace medusa
