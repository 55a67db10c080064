#include "gpu/report.h"

#include "base/check.h"

namespace medusa::benchmark {
namespace {

std::string formatted(const char* format, double number) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), format, number);
  return buffer;
}

}  // namespace

Field::Field(std::string_view name, double number)
    : key(name), shown(formatted("%.4g", number)), json(formatted("%.9g", number)) {}
Field::Field(std::string_view name, std::string_view word)
    : key(name), shown(word), json(text('"', word, '"')) {}

Report::Report(const std::string& path, double seconds) : seconds_(seconds) {
  if (path.empty()) return;
  file_ = std::fopen(path.c_str(), "w");
  check(file_ != nullptr, "--json: ", path, " cannot be written");
}
Report::~Report() {
  if (file_ != nullptr) std::fclose(file_);
}

double Report::elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void Report::add(std::string_view section, std::initializer_list<Field> fields) {
  std::string shown(section), json = text("{\"section\": \"", section, '"');
  for (const Field& field : fields) {
    shown += text("  ", field.key, ' ', field.shown);
    json += text(", \"", field.key, "\": ", field.json);
  }
  std::printf("%s\n", shown.c_str());
  std::fflush(stdout);
  if (file_ == nullptr) return;
  std::fprintf(file_, "%s}\n", json.c_str());
  std::fflush(file_);
}

}  // namespace medusa::benchmark
