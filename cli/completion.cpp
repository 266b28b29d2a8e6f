#include <fmt/format.h>

#include "app.hpp"

namespace scw::cli {

namespace {

struct Item {
  std::string short_name, long_name, text;
  bool takes_value = false, takes_file = false;
  std::vector<std::string> choices;
};

std::vector<Item> items(const CLI::App& app, const Choices& choices) {
  std::vector<Item> out;
  for (const CLI::Option* o : app.get_options()) {
    if (!o->nonpositional()) continue;
    Item base;
    base.text = o->get_description().substr(0, o->get_description().find_first_of(";:"));
    base.takes_value = o->get_items_expected_max() > 0;
    base.takes_file = base.takes_value && o->get_type_name() == "FILE";
    if (const auto found = choices.find(o); found != choices.end()) base.choices = found->second;
    bool first = true;
    for (const auto& name : o->get_lnames()) {
      Item item = base;
      item.long_name = name;
      if (first && !o->get_snames().empty()) item.short_name = o->get_snames().front();
      first = false;
      out.push_back(std::move(item));
    }
  }
  return out;
}

std::vector<std::string> positional_choices(const CLI::App& app, const Choices& choices) {
  for (const CLI::Option* o : app.get_options())
    if (o->get_positional())
      if (const auto found = choices.find(o); found != choices.end()) return found->second;
  return {};
}

std::string join(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : " ") + w;
  return out;
}

std::string quote(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else
      out += c;
  }
  return "'" + out + "'";
}

std::string bash(const CLI::App& app, const Choices& choices) {
  std::string commands, cases;
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    commands += (commands.empty() ? "" : " ") + sub->get_name();
    std::string names, values;
    for (const auto* source : {sub, &app})
      for (const auto& i : items(*source, choices)) {
        const std::string pattern = (i.short_name.empty() ? "" : "-" + i.short_name + "|") + "--" + i.long_name;
        names += " --" + i.long_name;
        if (!i.choices.empty())
          values += fmt::format("        {}) COMPREPLY=($(compgen -W '{}' -- \"$cur\")); return;;\n", pattern,
                                join(i.choices));
        else if (i.takes_file)
          values += fmt::format("        {}) COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n", pattern);
        else if (i.takes_value)
          values += fmt::format("        {}) return;;\n", pattern);
      }
    const auto positional = positional_choices(*sub, choices);
    cases += fmt::format(
        "    {0})\n      case \"$prev\" in\n{1}      esac\n"
        "      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '{2}' -- \"$cur\")); else COMPREPLY=($(compgen {3} -- "
        "\"$cur\")); fi;;\n",
        sub->get_name(), values, names.substr(1), positional.empty() ? "-f" : "-W '" + join(positional) + "'");
  }
  return fmt::format(
      "# bash completion for scwarp: source this file, or save it as /etc/bash_completion.d/scwarp\n"
      "_scwarp() {{\n  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= word\n"
      "  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do case $word in -*) ;; *) command=$word; break;; esac; "
      "done\n"
      "  case $command in\n{0}    *) COMPREPLY=($(compgen -W '{1} --help --version' -- \"$cur\"));;\n  esac\n}}\n"
      "complete -o filenames -F _scwarp scwarp\n",
      cases, commands);
}

std::string zsh(const CLI::App& app, const Choices& choices) {
  const auto spec = [](const std::string& text) {
    std::string out;
    for (const char c : text) {
      if (c == '[' || c == ']' || c == ':') out += '\\';
      out += c;
    }
    return out;
  };
  std::string commands, cases;
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    commands += fmt::format("    {}\n", quote(sub->get_name() + ":" + sub->get_description()));
    std::string list;
    for (const auto* source : {sub, &app})
      for (const auto& i : items(*source, choices)) {
        std::string action;
        if (!i.choices.empty())
          action = fmt::format(":value:({})", join(i.choices));
        else if (i.takes_file)
          action = ":file:_files";
        else if (i.takes_value)
          action = ":value:";
        list += fmt::format(" \\\n        {}", quote("--" + i.long_name + "[" + spec(i.text) + "]" + action));
        if (!i.short_name.empty())
          list += fmt::format(" \\\n        {}", quote("-" + i.short_name + "[" + spec(i.text) + "]" + action));
      }
    const auto positional = positional_choices(*sub, choices);
    list += " \\\n        " + quote(positional.empty() ? "*:file:_files" : "1:value:(" + join(positional) + ")");
    cases += fmt::format("      {})\n      _arguments{};;\n", sub->get_name(), list);
  }
  return fmt::format(
      "#compdef scwarp\n# zsh completion for scwarp: save as _scwarp in a folder of $fpath\n_scwarp() {{\n"
      "  local -a commands\n  commands=(\n{0}  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n"
      "  else\n    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n{1}    esac\n  "
      "fi\n}}\n"
      "compdef _scwarp scwarp\n",
      commands, cases);
}

std::string fish(const CLI::App& app, const Choices& choices) {
  std::string out = "# fish completion for scwarp: save as ~/.config/fish/completions/scwarp.fish\n";
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    out += fmt::format("complete -c scwarp -n __fish_use_subcommand -f -a {} -d {}\n", sub->get_name(),
                       quote(sub->get_description()));
    for (const auto* source : {sub, &app})
      for (const auto& i : items(*source, choices)) {
        out += fmt::format("complete -c scwarp -n '__fish_seen_subcommand_from {}' -l {} -d {}", sub->get_name(),
                           i.long_name, quote(i.text));
        if (!i.short_name.empty()) out += " -s " + i.short_name;
        if (!i.choices.empty())
          out += " -x -a " + quote(join(i.choices));
        else if (i.takes_file)
          out += " -r -F";
        else if (i.takes_value)
          out += " -x";
        out += "\n";
      }
    if (const auto positional = positional_choices(*sub, choices); !positional.empty())
      out += fmt::format("complete -c scwarp -n '__fish_seen_subcommand_from {}' -f -a {}\n", sub->get_name(),
                         quote(join(positional)));
  }
  return out;
}

}  // namespace

std::string completion_script(const CLI::App& app, const Choices& choices, const std::string& shell) {
  if (shell == "bash") return bash(app, choices);
  return shell == "zsh" ? zsh(app, choices) : fish(app, choices);
}

}  // namespace scw::cli
