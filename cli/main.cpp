#include <fmt/format.h>

#include <cstdio>
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
  } catch (const scw::InvalidArgument& e) {
    return fail(e.what(), kUsage);
  } catch (const std::exception& e) {
    return fail(e.what(), kError);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Interrupt::install();
  CLI::App app;
  Arguments arguments;
  Choices choices;
  build_app(app, arguments, choices);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::Error& e) {
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
