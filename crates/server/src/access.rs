//! Who may: one question about a token, asked in the two pipelines and nowhere else.

use model::{ANONYMOUS, AclInfo, Authority, Error, MANAGEMENT, Need, Text};
use store::{Read, View, Watch};
use tokio::time::Instant;

use crate::Config;
use crate::figures;

/// Ids that name built-in policies of the original and can't be used as tokens.
pub(crate) const ROOT_IDS: [&str; 3] = ["allow", "deny", "manage"];

/// What the bearer of `token` may, if it suffices for `need`.
pub(crate) fn authorise(
    config: &Config,
    view: &View,
    token: &Text,
    need: Need,
) -> Result<Authority, Error> {
    if !config.acl_enabled {
        return Ok(Authority::Management);
    }
    let began = Instant::now();
    let resolved = resolve(view, token);
    figures::note(&figures::TOKENS, began);
    let authority = match need {
        // Such questions are answered whoever asks, also with a token that doesn't exist.
        Need::Nothing => resolved.unwrap_or(Authority::Client),
        Need::Token | Need::Management => resolved?,
    };
    match (need, authority) {
        (Need::Management, Authority::Client) => Err(Error::PermissionDenied),
        (Need::Management, Authority::Management) | (Need::Nothing | Need::Token, _) => {
            Ok(authority)
        }
    }
}

fn resolve(view: &View, token: &Text) -> Result<Authority, Error> {
    if ROOT_IDS.iter().any(|id| *token == *id) {
        return Err(Error::invalid("Cannot resolve root ACL"));
    }
    let id = if token.is_empty() {
        Text::from(ANONYMOUS)
    } else {
        token.clone()
    };
    match (AclInfo { id }).read(view, &mut Watch::off()).answer {
        Some(row) if row.kind == MANAGEMENT => Ok(Authority::Management),
        Some(_) => Ok(Authority::Client),
        // The anonymous token is made on gaining leadership; until then nobody is somebody.
        None if token.is_empty() => Ok(Authority::Client),
        None => Err(Error::AclNotFound),
    }
}
