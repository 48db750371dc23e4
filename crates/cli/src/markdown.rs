//! The tree of commands as one Markdown page, `docs/reference/commands.md`.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

const PREFACE: &str = "\
# Commands

Generated from the program by `portcullis man --markdown`; a test fails when this page differs.

Data goes to standard output, messages and progress to standard error. With `--json`, data is one JSON value, lists
are `{\"items\": […], \"next\": null}`, and an error is `{\"error\": {\"code\", \"message\", \"help\", \"details\"}}` on standard
error. [Error codes and exit states](errors.md), [settings](configuration.md).
";

/// The page: a table of contents, the options that all commands share, then each command.
pub fn commands(mut root: Command) -> String {
    root.build();
    let mut page = PREFACE.to_owned();
    page.push_str("\n| command | does |\n|---|---|\n");
    contents(&root, "", &mut page);
    page.push_str("\n## Options of every command\n\n");
    options(&root, true, &mut page);
    for command in visible(&root) {
        section(command, "portcullis", 2, &mut page);
    }
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help")
}

fn contents(command: &Command, path: &str, page: &mut String) {
    for sub in visible(command) {
        let path = if path.is_empty() { sub.get_name().to_owned() } else { format!("{path} {}", sub.get_name()) };
        if sub.has_subcommands() {
            contents(sub, &path, page);
        } else {
            let anchor = format!("portcullis {path}").replace(' ', "-");
            line(page, &format!("| [`{path}`](#{anchor}) | {} |", about(sub)));
        }
    }
}

fn section(command: &Command, parent: &str, level: usize, page: &mut String) {
    let path = format!("{parent} {}", command.get_name());
    line(page, &format!("\n{} {path}\n", "#".repeat(level)));
    line(page, &format!("{}.", about(command)));
    if command.has_subcommands() {
        visible(command).for_each(|sub| section(sub, &path, level + 1, page));
        return;
    }
    line(page, &format!("\n```text\n{path}{}\n```", usage(command)));
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let own = command.get_opts().any(is_own) || command.get_arguments().any(|a| is_own(a) && !a.is_positional());
    if !positionals.is_empty() || own {
        page.push('\n');
        options(command, false, page);
    }
    if let Some(text) = command.get_after_help() {
        for paragraph in text.to_string().trim_end().split("\n\n") {
            match paragraph.strip_prefix("Examples:\n") {
                Some(examples) => line(page, &format!("\n```sh\n{}\n```", unindented(examples))),
                None => line(page, &format!("\n{paragraph}")),
            }
        }
    }
}

fn unindented(text: &str) -> String {
    text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

fn usage(command: &Command) -> String {
    let mut text = String::new();
    if command.get_arguments().any(|a| is_own(a) && !a.is_positional() && !a.is_required_set()) {
        text.push_str(" [OPTIONS]");
    }
    for arg in command.get_arguments().filter(|a| !a.is_positional() && a.is_required_set()) {
        _ = write!(text, " {}", flag(arg));
    }
    for arg in command.get_positionals() {
        let many = arg.get_num_args().is_some_and(|n| n.max_values() > 1);
        let name = format!("{}{}", names(arg), if many { "…" } else { "" });
        _ = if arg.is_required_set() { write!(text, " {name}") } else { write!(text, " [{name}]") };
    }
    text
}

fn is_global(arg: &Arg) -> bool {
    arg.is_global_set() || matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong)
}

fn is_own(arg: &Arg) -> bool {
    !is_global(arg) && !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Version)
}

fn options(command: &Command, global: bool, page: &mut String) {
    page.push_str("| argument | meaning |\n|---|---|\n");
    let mut args: Vec<&Arg> =
        command.get_arguments().filter(|a| !a.is_hide_set() && if global { is_global(a) } else { is_own(a) }).collect();
    args.sort_by_key(|a| !a.is_positional());
    for arg in args {
        let name = if arg.is_positional() { names(arg) } else { flag(arg) };
        line(page, &format!("| `{}` | {} |", cell(&name), meaning(arg)));
    }
}

fn flag(arg: &Arg) -> String {
    let mut text = arg.get_short().map(|c| format!("-{c}, ")).unwrap_or_default();
    _ = write!(text, "--{}", arg.get_long().unwrap_or_default());
    if arg.get_action().takes_values() {
        _ = write!(text, " {}", names(arg));
    }
    if matches!(arg.get_action(), ArgAction::Append) {
        text.push('…');
    }
    text
}

fn names(arg: &Arg) -> String {
    match arg.get_value_names() {
        Some(names) => names.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" "),
        None => arg.get_id().to_string().to_uppercase(),
    }
}

fn meaning(arg: &Arg) -> String {
    let mut text = cell(&arg.get_help().map(ToString::to_string).unwrap_or_default());
    let values: Vec<String> =
        arg.get_possible_values().iter().filter(|v| !v.is_hide_set()).map(|v| format!("`{}`", v.get_name())).collect();
    if arg.get_action().takes_values() && !values.is_empty() {
        _ = write!(text, ": {}", values.join(", "));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    text
}

fn about(command: &Command) -> String {
    cell(&command.get_about().map(ToString::to_string).unwrap_or_default())
}

/// One line without what would end a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn line(page: &mut String, text: &str) {
    page.push_str(text);
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn the_tree_is_consistent_and_every_argument_is_explained() {
        let mut root = Cli::command();
        root.clone().debug_assert();
        root.build();
        let mut open = vec![&root];
        while let Some(command) = open.pop() {
            assert!(command.get_about().is_some(), "{} has no summary", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {} has no help", command.get_name(), arg.get_id());
            }
            open.extend(visible(command));
        }
        let page = commands(Cli::command());
        assert!(page.contains("\n### portcullis grant add\n"), "{page}");
    }
}
