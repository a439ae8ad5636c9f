//! By which right a snapshot is given its name.

use std::time::Duration;

use client::{Client, Consistency, HeldLock, Loss, QueryOptions};
use tokio::time::{sleep, timeout};

/// For how long one reading of the lock is waited for.
const READ_TIME: Duration = Duration::from_secs(10);

/// How often the lock is read before it can't be read, and how long is waited in between: an election of the servers
/// in this very moment shouldn't cost a snapshot.
const READS: u32 = 3;
const READ_PAUSE: Duration = Duration::from_secs(2);

/// Why somebody may save.
pub(super) enum Mandate<'a> {
    /// Nobody else does.
    Alone,
    /// It holds the lock.
    Lock {
        client: &'a Client,
        key: &'a str,
        held: &'a HeldLock,
    },
}

/// Why nothing is published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Another may have the lock.
    Lost(String),
    /// It can't be found out.
    Unseen(String),
}

impl Mandate<'_> {
    /// Returns when it has ended.
    pub(super) async fn lost(&self) -> Loss {
        match self {
            Self::Alone => std::future::pending().await,
            Self::Lock { held, .. } => held.lost().await,
        }
    }

    /// Whether it holds at this moment, as far as this process can know.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Alone => true,
            Self::Lock { held, .. } => held.is_held(),
        }
    }

    /// Makes sure that it still holds, by what a leader says that has made sure that it is one.
    pub(super) async fn confirm(&self) -> Result<(), Doubt> {
        let Self::Lock { client, key, held } = self else {
            return Ok(());
        };
        let options = QueryOptions {
            consistency: Consistency::Consistent,
            ..QueryOptions::default()
        };
        let mut why = String::new();
        for attempt in 0..READS {
            if attempt > 0 {
                sleep(READ_PAUSE).await;
            }
            why = match timeout(READ_TIME, client.kv_get(key, &options)).await {
                Ok(Ok(seen)) => {
                    let is_ours = (seen.value).is_some_and(|pair| pair.session == held.session());
                    // While the answer was on its way, the session may have run out.
                    return if is_ours && held.is_held() {
                        Ok(())
                    } else {
                        Err(Doubt::Lost("the lock was lost".to_owned()))
                    };
                }
                Ok(Err(why)) => why.to_string(),
                Err(_) => "i/o timeout".to_owned(),
            };
        }
        Err(Doubt::Unseen(why))
    }
}
