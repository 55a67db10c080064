#pragma once

#include <chrono>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <string_view>

namespace medusa::benchmark {

/// One figure or word of a line.
struct Field {
  Field(std::string_view name, double number);
  Field(std::string_view name, std::string_view word);

  std::string key, shown, json;
};

/// Prints lines as they come, and writes each as a JSON object to a file.
class Report {
 public:
  /// `path` empty: no file. Throws if it cannot be written. After `seconds`, late() is true.
  Report(const std::string& path, double seconds);
  ~Report();

  void add(std::string_view section, std::initializer_list<Field> fields);
  double elapsed() const;
  bool late() const { return elapsed() > seconds_; }

 private:
  std::FILE* file_ = nullptr;
  double seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace medusa::benchmark
