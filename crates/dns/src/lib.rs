//! Names to records: the DNS face of the catalog.
//!
//! It knows no health and keeps no answers: every question is asked of the [`rpc::Cluster`] anew, and what is well enough to be shown is decided where it lies.
//! What others have to say about other names is passed on as it came.
//!
//! Start with [`Listener`], which is told by its [`Config`] how to answer, then follow a question: `server.rs` takes it from the socket, `message.rs` reads it, `name.rs` says what it asks for, `resolver.rs` asks, `answer.rs` makes records of what was found, and `message.rs` writes them.
//! A new form of names is a variant of `Lookup` in `name.rs`; the compiler then asks for the rest.

mod answer;
mod config;
mod datagrams;
mod domain;
mod message;
mod name;
mod recurse;
mod resolver;
mod server;
mod zone;

pub use config::Config;
pub use server::Listener;

/// What the fuzzers drive; nobody else has a use for it.
#[doc(hidden)]
pub mod fuzzing {
    use crate::domain::Name;
    use crate::message::{self, Decoded, MESSAGE_MAX, Message, Outcome, Style};

    /// Reads a message, as from a client and as from a recursor, and answers it.
    ///
    /// # Panics
    /// If what was written can't be read again.
    pub fn read_message(bytes: &[u8]) {
        message::decode_answers(bytes, 5);
        let Decoded::Request(request) = message::decode(bytes) else {
            return;
        };
        let style = Style {
            recursion_available: true,
            compression: true,
        };
        let answer = message::encode(&request, Message::of(Outcome::Found), style, MESSAGE_MAX);
        assert!(
            answer.len() <= message::PLAIN_MAX,
            "a question alone is short"
        );
        if let Some(question) = &request.question {
            let asked = message::encode_question(&request, question, 1232);
            let again = message::decode(&asked);
            assert!(matches!(again, Decoded::Request(again) if again.question == request.question));
        }
    }

    /// Reads a name in the usual form, and what it asks for.
    ///
    /// # Panics
    /// If a name leaves its bounds.
    pub fn read_name(text: &[u8]) {
        for domain in ["consul.", "my.test.", "."] {
            let domain = Name::parse(domain.as_bytes()).expect("it is one");
            if let Some(name) = Name::parse(text) {
                assert!(name.wire().len() <= 255, "names are bounded");
                crate::name::parse(&name, &domain);
            }
            if let Some(name) = Name::of(text.split(|byte| *byte == 0), Some(&domain)) {
                assert!(name.is_in(&domain), "the domain was appended");
                crate::name::parse(&name, &domain);
            }
        }
    }
}
