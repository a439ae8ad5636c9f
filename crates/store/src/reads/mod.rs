//! How questions are answered, by subject.
