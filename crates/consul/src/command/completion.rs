//! `consul completion`: scripts that let a shell complete the names of commands and flags, made of the same tables as the help.

use std::fmt::Write as _;

use super::{Command, FAILED, GROUPS, OK, http, members};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "completion",
    arguments: "SHELL",
    summary: "Prints what lets a shell complete commands and flags",
    about: "Prints a script for bash, zsh or fish. Sourced when a shell starts, it completes commands, what belongs to \
            them, and flags; everything else is completed as names of files.",
    example: "consul completion bash > /etc/bash_completion.d/consul\n\
              consul completion zsh > /usr/share/zsh/site-functions/_consul\n\
              consul completion fish > ~/.config/fish/completions/consul.fish",
    flags: &[],
};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let script = match parsed.arguments.as_slice() {
        [shell] if shell == "bash" => bash(),
        [shell] if shell == "zsh" => zsh(),
        [shell] if shell == "fish" => fish(),
        [shell] => {
            return http::failed(
                console,
                format_args!(
                    "There is no completion for {shell:?}; for bash, zsh and fish there is."
                ),
            );
        }
        _ => {
            console.say("The name of a shell must be specified.\n");
            console.say(SYNTAX.help());
            return FAILED;
        }
    };
    match console.write(script.as_bytes()) {
        Ok(()) => OK,
        Err(why) => http::failed(console, format_args!("Error writing the script: {why}")),
    }
}

/// What may follow some words.
struct Place {
    /// The words after `consul`; none at first.
    words: &'static str,
    /// Words that may come next, each with a line about it.
    next: Vec<(&'static str, &'static str)>,
    flags: Vec<&'static Flag>,
}

/// Every place where something can be completed, the first words first.
fn places() -> Vec<Place> {
    let syntaxes = || Command::ALL.iter().map(|command| command.syntax());
    let mut first: Vec<_> = syntaxes()
        .filter(|syntax| !syntax.name.contains(' '))
        .map(|syntax| (syntax.name, syntax.summary))
        .chain(GROUPS.iter().map(|group| (group.name, group.summary)))
        .collect();
    first.sort_unstable();
    let mut places = vec![Place {
        words: "",
        next: first,
        flags: Vec::new(),
    }];
    for group in GROUPS {
        places.push(Place {
            words: group.name,
            next: members(group).collect(),
            flags: Vec::new(),
        });
    }
    for syntax in syntaxes() {
        let next = if syntax.name == SYNTAX.name {
            SHELLS.map(|shell| (shell, "")).to_vec()
        } else {
            Vec::new()
        };
        places.push(Place {
            words: syntax.name,
            next,
            flags: syntax.shown().collect(),
        });
    }
    places
}

/// How a flag is begun: one that takes a value goes on behind an equals sign.
fn begun(flag: &Flag) -> String {
    match flag.value() {
        Value::Switch(_) => format!("-{}", flag.name()),
        Value::Text(_) | Value::Int(_) | Value::Uint(_) | Value::Duration(_) | Value::Many => {
            format!("-{}=", flag.name())
        }
    }
}

/// The first sentence.
fn brief(text: &str) -> &str {
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

fn bash() -> String {
    let mut script = "\
# Completion of consul for bash. To have it: source <(consul completion bash)
_consul() {
    local word=${COMP_WORDS[COMP_CWORD]} words= next= flags=
    (( COMP_CWORD > 1 )) && words=${COMP_WORDS[1]}
    (( COMP_CWORD > 2 )) && words+=\" ${COMP_WORDS[2]}\"
    case $words in
"
    .to_owned();
    for place in places() {
        let next: Vec<&str> = place.next.iter().map(|(word, _)| *word).collect();
        let flags: Vec<String> = place.flags.iter().map(|flag| begun(flag)).collect();
        let _ = writeln!(
            script,
            "        {}) next='{}' flags='{}' ;;",
            pattern(place.words, "'*"),
            next.join(" "),
            flags.join(" ")
        );
    }
    script.push_str(
        "    esac
    if [[ $word == -* ]]; then
        next=$flags
    fi
    COMPREPLY=($(compgen -W \"$next\" -- \"$word\"))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _consul consul
",
    );
    script
}

/// What matches the words after `consul`: those of a command of one word may be followed by anything.
fn pattern(words: &str, rest: &str) -> String {
    if words.is_empty() || words.contains(' ') || GROUPS.iter().any(|group| group.name == words) {
        format!("'{words}'")
    } else {
        format!("'{words}'|'{words} {rest}")
    }
}

fn zsh() -> String {
    let mut script = "\
#compdef consul
# Completion of consul for zsh. To have it: a file _consul with this in a folder of $fpath, or source <(consul completion zsh)
_consul() {
    local command=''
    local -a next flags
    (( CURRENT > 2 )) && command=${words[2]}
    (( CURRENT > 3 )) && command+=\" ${words[3]}\"
    case $command in
"
    .to_owned();
    for place in places() {
        let entry = |(word, about): (String, &str)| {
            // The first colon ends the word.
            let word = word.replace(':', "\\:");
            format!(" {}", quoted(&format!("{word}:{}", brief(about)), "'\\''"))
        };
        let next = place.next.iter();
        let next: String = next
            .map(|(word, about)| entry(((*word).to_owned(), about)))
            .collect();
        let flags = place.flags.iter();
        let flags: String = flags
            .map(|flag| entry((begun(flag), flag.help())))
            .collect();
        let _ = writeln!(
            script,
            "        ({})\n            next=({})\n            flags=({})\n            ;;",
            pattern(place.words, "'*"),
            next.trim_start(),
            flags.trim_start()
        );
    }
    script.push_str(
        "    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o flag flags -S ''
    elif (( $#next )); then
        _describe command next
    else
        _files
    fi
}
if [[ $funcstack[1] == _consul ]]; then
    _consul \"$@\"
else
    compdef _consul consul
fi
",
    );
    script
}

fn fish() -> String {
    let mut script = "\
# Completion of consul for fish. To have it: consul completion fish | source
function __consul_is --description 'Whether these are all words so far'
    set -l words (commandline -opc)
    test \"$words[2..-1]\" = \"$argv\"
end
function __consul_at --description 'Whether the words so far begin with these'
    set -l words (commandline -opc)
    set -l last (math 1 + (count $argv))
    test (count $words) -ge $last; and test \"$words[2..$last]\" = \"$argv\"
end
complete -c consul -n __consul_is -f
"
    .to_owned();
    for place in places() {
        for (word, about) in &place.next {
            let _ = writeln!(
                script,
                "complete -c consul -n {} -f -a {word} -d {}",
                quoted(format!("__consul_is {}", place.words).trim_end(), "\\'"),
                quoted(brief(about), "\\'")
            );
        }
        for flag in &place.flags {
            let needs = match flag.value() {
                Value::Switch(_) => "",
                Value::Text(_)
                | Value::Int(_)
                | Value::Uint(_)
                | Value::Duration(_)
                | Value::Many => " -r",
            };
            let _ = writeln!(
                script,
                "complete -c consul -n '__consul_at {}' -o {}{needs} -d {}",
                place.words,
                flag.name(),
                quoted(brief(flag.help()), "\\'")
            );
        }
    }
    script
}

/// A text in single quotes, of which `quote` stands for one inside.
fn quoted(text: &str, quote: &str) -> String {
    format!("'{}'", text.replace('\'', quote))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use crate::console::tests::consul;

    fn script(shell: &str) -> String {
        let printed = consul(&["completion", shell], b"", &[]);
        assert_eq!((printed.status, printed.errors.as_str()), (0, ""));
        printed.output
    }

    /// What bash offers after these words, of which the last is begun.
    fn offered(words: &[&str]) -> Vec<String> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "{}\nCOMP_WORDS=(consul {}) COMP_CWORD={}\n_consul\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            script("bash"),
            quoted.join(" "),
            words.len()
        );
        let mut bash = Command::new("bash")
            .args(["--norc", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        bash.stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = bash.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let offered = String::from_utf8(output.stdout).unwrap();
        offered.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["sn"], &["snapshot"]),
            (&["kv", ""], &["delete", "export", "get", "import", "put"]),
            (&["snapshot", "re"], &["redact", "restore"]),
            (&["kv", "get", "-det"], &["-detailed"]),
            (&["kv", "get", "-http"], &["-http-addr="]),
            (&["kv", "get", "x", "-http"], &["-http-addr="]),
            // Names of files.
            (&["kv", "get", ""], &[]),
            (&["agent", "-config"], &["-config-file=", "-config-dir="]),
            (&["agent", "-dev", "-client"], &["-client="]),
            (&["agent", ""], &[]),
            // What -h doesn't show isn't offered.
            (&["agent", "-atlas"], &[]),
            (&["completion", ""], &["bash", "zsh", "fish"]),
            (&["nonsense", "x"], &[]),
            (&["-"], &[]),
        ];
        for (words, expected) in cases {
            assert_eq!(offered(words), *expected, "{words:?}");
        }
        let all = offered(&[""]);
        for first in ["agent", "kv", "watch"] {
            assert!(all.iter().any(|word| word == first), "{all:?}");
        }
    }

    #[test]
    fn every_command_and_flag_is_in_every_script() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(shell);
            for command in super::Command::ALL {
                let syntax = command.syntax();
                assert!(script.contains(syntax.name), "{shell}: {}", syntax.name);
                for flag in syntax.shown() {
                    let name = match shell {
                        "fish" => format!("'__consul_at {}' -o {} ", syntax.name, flag.name()),
                        _ => super::begun(flag),
                    };
                    assert!(script.contains(&name), "{shell}: {name}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_shell() {
        let printed = consul(&["completion", "cmd"], b"", &[]);
        assert_eq!(
            (printed.status, printed.output.as_str()),
            (
                1,
                "There is no completion for \"cmd\"; for bash, zsh and fish there is.\n"
            )
        );
        let printed = consul(&["completion"], b"", &[]);
        assert_eq!(printed.status, 1);
        assert!(printed.output.contains("Usage: consul completion "));
    }
}
