#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "app.hpp"
#include "console.hpp"
#include "interrupt.hpp"
#include "scwarp/core/error.hpp"

namespace {

using namespace scw::cli;

int report_error(const Arguments& arguments) {
  Console console(arguments);
  const auto fail = [&](const char* text, int code) {
    console.error(text, code);
    return code;
  };
  try {
    throw;
  } catch (const scw::Cancelled&) {
    const int code = Interrupt::exit_code();
    return fail("interrupted, nothing was written", code == 0 ? kInterrupted : code);
  } catch (const scw::OutOfMemory& e) {
    return fail(e.what(), kOutOfMemory);
  } catch (const std::bad_alloc&) {
    return fail("out of memory: the system refused an allocation", kOutOfMemory);
  } catch (const scw::BackendUnavailable& e) {
    return fail(e.what(), kNoDevice);
  } catch (const scw::FormatError& e) {
    return fail(e.what(), kBadInput);
  } catch (const scw::DataError& e) {
    return fail(e.what(), kBadInput);
  } catch (const scw::DTypeMismatch& e) {
    return fail(e.what(), kBadInput);
  } catch (const scw::InvalidArgument& e) {
    return fail(e.what(), kUsage);
  } catch (const std::exception& e) {
    return fail(e.what(), kError);
  }
}

/// A stream that the caller has closed must not become the name of the next file that is opened: what is written to it
/// fails instead.
void hold_standard_streams() {
  for (int fd = 0; fd < 3; ++fd)
    if (::fcntl(fd, F_GETFD) == -1 && errno == EBADF)
      static_cast<void>(::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY));  // takes the lowest number that is free
}

/// Of a word or option in the place of a command.
int fail_unknown(const CLI::App& app, const std::string& word) {
  std::string names;
  for (const auto* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names += (names.empty() ? "" : ", ") + command->get_name();
  std::fputs(fmt::format("There is no {} '{}' (commands: {})\nRun with --help for more information.\n",
                         word.starts_with('-') ? "option" : "command", word, names)
                 .c_str(),
             stderr);
  return kUsage;
}

int run_program(int argc, char** argv) {
  CLI::App app;
  Arguments arguments;
  Choices choices;
  build_app(app, arguments, choices);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::Error& e) {
    const auto unknown = app.remaining();
    if (app.get_subcommands().empty() && !unknown.empty()) return fail_unknown(app, unknown.front());
    app.exit(e);
    return kUsage;
  }
  try {
    if (app.got_subcommand("run")) {
      if (arguments.write_config) {
        fmt::print("{}", config_text(*app.get_subcommand("run")));
        return kOk;
      }
      return run_command(arguments);
    }
    if (app.got_subcommand("info")) return info_command(arguments);
    if (app.got_subcommand("simulate")) return simulate_command(arguments);
    if (app.got_subcommand("convert")) return convert_command(arguments);
    if (app.got_subcommand("concat")) return concat_command(arguments);
    if (app.got_subcommand("doctor")) return doctor_command(arguments);
    std::fputs(completion_script(app, choices, arguments.shell).c_str(), stdout);
    return kOk;
  } catch (...) {
    return report_error(arguments);
  }
}

}  // namespace

int main(int argc, char** argv) {
  hold_standard_streams();
  Interrupt::install();
  const int code = run_program(argc, argv);
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  const std::string reason = errno == 0 ? "" : fmt::format(" ({})", std::strerror(errno));
  std::fputs(fmt::format("scwarp: standard output cannot be written{}\n", reason).c_str(), stderr);
  return code == kOk ? kError : code;
}
