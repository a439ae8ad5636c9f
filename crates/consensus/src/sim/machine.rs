//! The plainest state machine: it keeps every command in a list.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Trace;
use crate::machine::{Committed, Frozen, MachineError, Payload, Reply, StateMachine};

/// Commands longer than this are refused when a list is read back.
const COMMAND_MAX: usize = 8 << 20;

/// Keeps every command with its index. The reply to a command is the number of commands so far, a `u64`.
#[derive(Clone, Debug, Default)]
pub struct ListMachine {
    state: Arc<Mutex<ListState>>,
}

#[derive(Debug, Default)]
struct ListState {
    commands: Arc<Vec<(u64, Bytes)>>,
    applied: u64,
    batches: u64,
    refuses_to_freeze: bool,
    ledger: Option<Ledger>,
}

/// What all servers of a cluster applied, in all their lives: they must never disagree.
#[derive(Clone, Debug)]
pub struct Ledger {
    entries: Arc<Mutex<BTreeMap<u64, (u64, Payload)>>>,
    violation: Arc<Mutex<Option<String>>>,
    trace: Trace,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(trace: Trace) -> Self {
        Self {
            entries: Arc::default(),
            violation: Arc::default(),
            trace,
        }
    }

    /// What the first server that broke a promise did, if one did.
    pub fn violation(&self) -> Option<String> {
        self.broken().clone()
    }

    fn broken(&self) -> MutexGuard<'_, Option<String>> {
        self.violation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a promise was broken, and stops the server that did it.
    fn refuse(&self, what: String) -> MachineError {
        self.broken().get_or_insert_with(|| what.clone());
        MachineError::new(what)
    }

    fn apply(&self, entry: &Committed) -> Result<(), MachineError> {
        let command = match &entry.payload {
            Payload::Command(command) => command.clone(),
            Payload::Blank | Payload::Membership => Bytes::new(),
        };
        self.trace.event(
            "apply",
            &[
                &entry.index.to_le_bytes(),
                &entry.term.to_le_bytes(),
                &command,
            ],
        );
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let written = entries
            .entry(entry.index)
            .or_insert_with(|| (entry.term, entry.payload.clone()));
        if *written == (entry.term, entry.payload.clone()) {
            Ok(())
        } else {
            Err(self.refuse(format!("servers disagree about entry {}", entry.index)))
        }
    }
}

impl ListMachine {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T>(&self, look: impl FnOnce(&mut ListState) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An empty list that is compared with those of other servers.
    pub fn with_ledger(ledger: Ledger) -> Self {
        let machine = Self::default();
        machine.with(|state| state.ledger = Some(ledger));
        machine
    }

    /// All commands that were applied, with their indexes.
    pub fn commands(&self) -> Arc<Vec<(u64, Bytes)>> {
        self.with(|state| Arc::clone(&state.commands))
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> u64 {
        self.with(|state| state.applied)
    }

    /// How often something was applied.
    pub fn batches(&self) -> u64 {
        self.with(|state| state.batches)
    }

    /// Whether `freeze` says *not now*.
    pub fn refuse_to_freeze(&self, refuses: bool) {
        self.with(|state| state.refuses_to_freeze = refuses);
    }
}

impl StateMachine for ListMachine {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError> {
        self.with(|state| {
            state.batches += 1;
            let mut replies: Vec<Reply> = Vec::with_capacity(batch.len());
            for entry in batch {
                if entry.index != state.applied + 1 && !(entry.index == 0 && state.applied == 0) {
                    let what = format!(
                        "entry {} was applied after entry {}",
                        entry.index, state.applied
                    );
                    return Err(match &state.ledger {
                        Some(ledger) => ledger.refuse(what),
                        None => MachineError::new(what),
                    });
                }
                if let Some(ledger) = &state.ledger {
                    ledger.apply(&entry)?;
                }
                state.applied = entry.index;
                if let Payload::Command(command) = entry.payload {
                    Arc::make_mut(&mut state.commands).push((entry.index, command));
                }
                replies.push(Box::new(state.commands.len() as u64));
            }
            Ok(replies)
        })
    }

    fn freeze(&mut self) -> Option<Box<dyn Frozen>> {
        self.with(|state| {
            let frozen = FrozenList {
                commands: Arc::clone(&state.commands),
                applied: state.applied,
            };
            let frozen: Box<dyn Frozen> = Box::new(frozen);
            (!state.refuses_to_freeze).then_some(frozen)
        })
    }

    fn install(&mut self, source: &mut dyn Read) -> Result<(), MachineError> {
        let (commands, applied) =
            read_list(source).map_err(|error| MachineError::new(error.to_string()))?;
        self.with(|state| {
            if let Some(ledger) = &state.ledger
                && applied < state.applied
            {
                return Err(ledger.refuse(format!(
                    "a server went back from entry {} to entry {applied}",
                    state.applied
                )));
            }
            state.commands = Arc::new(commands);
            state.applied = applied;
            Ok(())
        })
    }
}

struct FrozenList {
    commands: Arc<Vec<(u64, Bytes)>>,
    applied: u64,
}

impl Frozen for FrozenList {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.applied.to_le_bytes())?;
        out.write_all(&(self.commands.len() as u64).to_le_bytes())?;
        for (index, command) in self.commands.iter() {
            out.write_all(&index.to_le_bytes())?;
            out.write_all(&(command.len() as u64).to_le_bytes())?;
            out.write_all(command)?;
        }
        Ok(())
    }
}

fn read_list(source: &mut dyn Read) -> io::Result<(Vec<(u64, Bytes)>, u64)> {
    let mut number = || -> io::Result<u64> {
        let mut raw = [0; 8];
        source.read_exact(&mut raw)?;
        Ok(u64::from_le_bytes(raw))
    };
    let applied = number()?;
    let count = number()?;
    let mut commands = Vec::new();
    for _ in 0..count {
        let mut head = [0; 16];
        source.read_exact(&mut head)?;
        let (index, length) = head.split_at(8);
        let read = |raw: &[u8]| {
            raw.iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        };
        let length = usize::try_from(read(length)).unwrap_or(usize::MAX);
        if length > COMMAND_MAX {
            return Err(io::Error::other("a command is too long"));
        }
        let mut command = vec![0; length];
        source.read_exact(&mut command)?;
        commands.push((read(index), Bytes::from(command)));
    }
    Ok((commands, applied))
}
