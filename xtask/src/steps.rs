//! Steps of a longer command: each announced, timed, and named again in the closing summary.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What was run so far and how it went.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: String,
    took: Duration,
    failure: Option<String>,
}

impl Steps {
    /// Runs one step. A failure is noted and the next steps still run, so that one look shows everything.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("== {name}");
        let start = Instant::now();
        let failure = step().err().map(|error| format!("{error:#}"));
        let took = start.elapsed();
        if let Some(failure) = &failure {
            println!("{failure}");
        }
        self.done.push(Done {
            name: name.to_owned(),
            took,
            failure,
        });
    }

    /// Prints the summary; an error if a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for Done {
            name,
            took,
            failure,
        } in &self.done
        {
            let mark = if failure.is_none() {
                "ok    "
            } else {
                "FAILED"
            };
            println!("{mark} {name:<24} {:>7.1} s", took.as_secs_f64());
        }
        let failed = self
            .done
            .iter()
            .filter(|step| step.failure.is_some())
            .count();
        if failed > 0 {
            bail!("{failed} of {} steps failed", self.done.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_hide_the_next_and_fails_the_whole() {
        let mut ran = false;
        let mut steps = Steps::default();
        steps.run("first", || bail!("broken"));
        steps.run("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert_eq!(
            steps.finish().unwrap_err().to_string(),
            "1 of 2 steps failed"
        );
    }
}
