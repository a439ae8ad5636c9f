//! How questions are answered, by subject.
//!
//! Each answer has two indexes: what the header says, as the original computes it (often that of a whole table), and when exactly what was asked about last changed, which decides whether a waiting client is told.
//! A new question is an `impl Read` in the file of its subject.

use model::Index;

use crate::changes::{Kind, Subject};
use crate::tables::Table;
use crate::view::{Found, View};
use crate::watch::Watch;

mod acl;
mod catalog;
mod coordinate;
mod health;
mod kv;
mod lookup;
mod query;
mod session;
mod txn;

impl<A> Found<A> {
    /// The answer to a question about whole tables.
    fn of_tables(view: &View, watch: &mut Watch, tables: &[Table], answer: A) -> Self {
        for table in tables {
            watch.table(*table);
        }
        let index = view.state().indexes.max(tables);
        Self::new(view, answer, index, index)
    }

    /// The answer to a question about a name, whose last change is noted under it whether it exists or not.
    fn of_name(
        view: &View,
        watch: &mut Watch,
        subject: &Subject,
        header: Index,
        answer: A,
    ) -> Self {
        watch.subject(subject);
        match view.state().changes.get(subject) {
            Some(changed) => Self::new(view, answer, header, changed),
            None => Self::new_forgetful(view, answer, header, 0),
        }
    }

    /// The answer to a question about one row that says itself when it was written; only its deletion is noted.
    fn of_row(
        view: &View,
        watch: &mut Watch,
        (kind, id): (Kind, &[u8]),
        table: Table,
        (answer, modified): (A, Option<Index>),
    ) -> Self {
        let subject = Subject::new(kind, id);
        let header = view.state().indexes.get(table);
        match modified {
            Some(modified) => {
                watch.subject(&subject);
                Self::new(view, answer, header, modified)
            }
            None => Self::of_name(view, watch, &subject, header, answer),
        }
    }
}
