//! The tokens that must exist: the anonymous one and the master.

use model::{ANONYMOUS, AclInfo, AclToken, CLIENT, Command, Error, MANAGEMENT, Text};
use store::{Read, View, Watch};

use crate::core::Core;
use crate::write::propose;
use crate::{Config, access};

pub(super) async fn run(core: &Core) -> Result<(), Error> {
    for token in plan(&core.config, &core.shared.view()) {
        propose(core, Command::AclSet(Box::new(token))).await?;
    }
    if core.config.decides_about_tokens() {
        let broken = access::complain(core).await;
        if broken > 0 {
            tracing::error!(
                "{broken} tokens have rules that can't be compiled: whoever brings one is refused"
            );
        }
    }
    Ok(())
}

/// Which tokens are missing; those that exist stay as they are.
fn plan(config: &Config, view: &View) -> Vec<AclToken> {
    if !config.decides_about_tokens() {
        return Vec::new();
    }
    let mut tokens = vec![AclToken {
        id: Text::from(ANONYMOUS),
        name: Text::from("Anonymous Token"),
        kind: Text::from(CLIENT),
        ..AclToken::default()
    }];
    if !config.acl.master_token.is_empty() {
        tokens.push(AclToken {
            id: Text::from(config.acl.master_token.as_str()),
            name: Text::from("Master Token"),
            kind: Text::from(MANAGEMENT),
            ..AclToken::default()
        });
    }
    tokens.retain(|token| {
        (AclInfo {
            id: token.id.clone(),
        })
        .read(view, &mut Watch::off())
        .answer
        .is_none()
    });
    tokens
}
