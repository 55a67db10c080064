#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

namespace medusa::benchmark {

inline double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

/// Medians of several bodies that take turns, so that a busy moment hits all of them.
inline std::vector<double> interleaved(const std::vector<std::function<void()>>& bodies,
                                       int repeats) {
  std::vector<std::vector<double>> times(bodies.size());
  for (int r = 0; r <= repeats; ++r) {
    for (size_t i = 0; i < bodies.size(); ++i) {
      const double t = seconds_of(bodies[i]);
      if (r > 0) times[i].push_back(t);  // the first turn warms up
    }
  }
  std::vector<double> medians;
  for (const auto& t : times) medians.push_back(median(t));
  return medians;
}

}  // namespace medusa::benchmark
