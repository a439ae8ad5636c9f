//! `consul version`.

use super::OK;
use crate::console::Console;
use crate::flags::Syntax;
use crate::release::{BUILD, COMPATIBLE_VERSION};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "version",
    arguments: "",
    summary: "Prints the version of this program",
    about: "Prints the version of Consul that this program is compatible with, the protocol versions it \
            speaks, and its own build.",
    example: "consul version",
    flags: &[],
};

pub(super) fn run(console: &mut Console<'_>) -> u8 {
    // Tools read the first line, so our own build stands on a later one.
    console.say(format_args!("Consul v{COMPATIBLE_VERSION}"));
    console.say(
        "Protocol 2 spoken by default, understands 2 to 3 (agent will automatically use protocol >2 when \
         speaking to compatible agents)",
    );
    console.say(format_args!(
        "Build {BUILD} (Rust, an independent implementation)"
    ));
    OK
}
