//! Who may: one question about a token, asked in the two pipelines and nowhere else.

use model::{ANONYMOUS, Access, AclInfo, Authority, Error, Grant, MANAGEMENT, Need, Policy, Text};
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
    if !config.acl.is_enabled() {
        return Ok(Authority::unlimited());
    }
    let began = Instant::now();
    let resolved = resolve(view, token).and_then(|grant| grant.authority(false));
    figures::note(&figures::TOKENS, began);
    match need {
        // Such questions are answered whoever asks, also with a token that doesn't exist.
        Need::Nothing => Ok(resolved.unwrap_or_else(|_| nobody())),
        Need::Token => resolved,
        Need::Management => {
            let authority = resolved?;
            authority.demand_management()?;
            Ok(authority)
        }
    }
}

/// What everybody may.
fn nobody() -> Authority {
    Authority::limited(everything_but_management(), false)
}

fn everything_but_management() -> Policy {
    Policy::new([], Access::Write)
}

/// What the bearer of `token` may.
pub(crate) fn grant(config: &Config, view: &View, token: &Text) -> Result<Grant, Error> {
    if !config.acl.is_enabled() {
        return Ok(Grant::Disabled);
    }
    resolve(view, token)
}

fn resolve(view: &View, token: &Text) -> Result<Grant, Error> {
    if ROOT_IDS.iter().any(|id| *token == *id) {
        return Err(Error::invalid("Cannot resolve root ACL"));
    }
    let id = if token.is_empty() {
        Text::from(ANONYMOUS)
    } else {
        token.clone()
    };
    Ok(
        match (AclInfo { id }).read(view, &mut Watch::off()).answer {
            Some(row) if row.kind == MANAGEMENT => Grant::Everything,
            Some(_) => Grant::Rules(everything_but_management()),
            // The anonymous token is made on gaining leadership; until then nobody is somebody.
            None if token.is_empty() => Grant::Rules(everything_but_management()),
            None => Grant::Unknown,
        },
    )
}
