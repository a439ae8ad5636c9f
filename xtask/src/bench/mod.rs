//! The speed table.

use anyhow::Result;

use crate::arguments::Arguments;

pub(crate) fn bench(arguments: Arguments) -> Result<()> {
    arguments.nothing_more()
}
