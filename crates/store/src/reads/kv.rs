//! Keys.

use model::{Access, Authority, Index, KvEntry, KvGet, KvKeys, KvList, Resource, Text};

use crate::tables::Table;
use crate::view::{Found, Read, View};
use crate::watch::Watch;

impl Read for KvGet {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        watch.key(&self.key);
        match view.state().kv.get(&self.key) {
            Some(entry) => Found::entry(view, Some(entry.clone()), entry.modify_index()),
            None => missing(self, view),
        }
    }

    /// Who may not see the key is told what somebody is told who asks for one that isn't there, the index included.
    fn read_for(&self, view: &View, watch: &mut Watch, reader: &Authority) -> Found<Self::Answer> {
        if reader.allows(Resource::Key, &self.key, Access::Read) {
            return self.read(view, watch);
        }
        watch.key(&self.key);
        missing(self, view)
    }
}

/// The answer about a key that isn't there.
fn missing(question: &KvGet, view: &View) -> Found<Option<KvEntry>> {
    let deleted = view.state().tombstones.get(&question.key).unwrap_or(0);
    Found::new_forgetful(view, None, table_index(view), deleted)
}

impl Read for KvList {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let entries: Vec<KvEntry> = view.state().kv.under(&self.prefix).cloned().collect();
        let newest = entries.iter().map(KvEntry::modify_index).max();
        found_under(view, watch, &self.prefix, newest, entries)
    }
}

impl Read for KvKeys {
    fn read(&self, view: &View, watch: &mut Watch) -> Found<Self::Answer> {
        let mut newest = None;
        let mut keys: Vec<Text> = Vec::new();
        for entry in view.state().kv.under(&self.prefix) {
            newest = newest.max(Some(entry.modify_index()));
            let key = cut(entry.key(), self.prefix.len(), &self.separator);
            if keys.last().is_none_or(|last| **last != *key) {
                keys.push(Text::from(key));
            }
        }
        found_under(view, watch, &self.prefix, newest, keys)
    }
}

/// Cuts a key behind the first separator after the prefix.
fn cut<'a>(key: &'a [u8], prefix_len: usize, separator: &[u8]) -> &'a [u8] {
    if separator.is_empty() {
        return key;
    }
    let found = key[prefix_len..]
        .windows(separator.len())
        .position(|window| window == separator);
    match found {
        Some(at) => &key[..prefix_len + at + separator.len()],
        None => key,
    }
}

/// An answer about all keys that begin so; `newest` is the latest change of those that exist.
fn found_under<A>(
    view: &View,
    watch: &mut Watch,
    prefix: &Text,
    newest: Option<Index>,
    answer: A,
) -> Found<A> {
    watch.prefix(prefix);
    if prefix.is_empty() {
        let index = table_index(view);
        return Found::new(view, answer, index, index);
    }
    let deleted = view.state().tombstones.newest_under(prefix);
    let changed = deleted.max(newest.unwrap_or(0));
    let header = match changed {
        0 => table_index(view),
        changed => changed,
    };
    Found::new_forgetful(view, answer, header, changed)
}

/// The index of the table, never 0: clients would not wait for that.
fn table_index(view: &View) -> Index {
    let tables = [Table::Kvs, Table::Tombstones];
    view.state().indexes.max(&tables).max(1)
}
