//! Measures, their medians over runs, and the table.

use std::fmt;

/// One figure of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measure {
    pub(crate) work: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) limit: Limit,
    /// What the machine itself could do in the same run.
    pub(crate) ceiling: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Shown because it explains another figure.
    None,
}

impl Measure {
    pub(crate) fn at_most(work: &'static str, unit: &'static str, value: f64, limit: f64) -> Self {
        Self {
            work,
            unit,
            value,
            limit: Limit::AtMost(limit),
            ceiling: None,
        }
    }

    pub(crate) fn at_least(work: &'static str, unit: &'static str, value: f64, limit: f64) -> Self {
        Self {
            work,
            unit,
            value,
            limit: Limit::AtLeast(limit),
            ceiling: None,
        }
    }

    pub(crate) fn shown(work: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            work,
            unit,
            value,
            limit: Limit::None,
            ceiling: None,
        }
    }

    pub(crate) fn beside(mut self, ceiling: f64) -> Self {
        self.ceiling = Some(ceiling);
        self
    }

    /// A figure that isn't a number reaches nothing.
    pub(crate) fn reached(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.value <= limit,
            Limit::AtLeast(limit) => self.value >= limit,
            Limit::None => true,
        }
    }

    fn target(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("≤ {} {}", number(limit), self.unit),
            Limit::AtLeast(limit) => format!("≥ {} {}", number(limit), self.unit),
            Limit::None => "–".to_owned(),
        }
    }

    fn measured(&self) -> String {
        format!("{} {}", number(self.value), self.unit)
    }

    fn mark(&self) -> &'static str {
        match self.limit {
            Limit::None => "",
            _ if self.reached() => "ok",
            _ => "MISSED",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} (target {})",
            self.work,
            self.measured(),
            self.target()
        )
    }
}

/// The median of each measure over all runs; every run has the same measures in the same order.
pub(crate) fn medians(runs: &[Vec<Measure>]) -> Vec<Measure> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let over = |at: usize, part: &dyn Fn(&Measure) -> f64| {
        median(runs.iter().map(|run| part(&run[at])).collect())
    };
    let mut medians = first.clone();
    for (at, measure) in medians.iter_mut().enumerate() {
        measure.value = over(at, &|measure| measure.value);
        measure.ceiling = measure
            .ceiling
            .map(|_| over(at, &|measure| measure.ceiling.unwrap_or(f64::NAN)));
        // A limit may follow from the ceiling of its run.
        let limit = over(at, &|measure| match measure.limit {
            Limit::AtMost(limit) | Limit::AtLeast(limit) => limit,
            Limit::None => f64::NAN,
        });
        match &mut measure.limit {
            Limit::AtMost(old) | Limit::AtLeast(old) => *old = limit,
            Limit::None => {}
        }
    }
    medians
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The table in the form in which documents have it.
pub(crate) fn render(measures: &[Measure]) -> String {
    let mut rows = vec![["work", "target", "measured", "ceiling of the run", ""].map(String::from)];
    for measure in measures {
        let ceiling = measure
            .ceiling
            .map(|ceiling| format!("{} {}", number(ceiling), measure.unit));
        rows.push([
            measure.work.to_owned(),
            measure.target(),
            measure.measured(),
            ceiling.unwrap_or_default(),
            measure.mark().to_owned(),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("| {cell:<width$} "));
        }
        text.push_str("|\n");
        if at == 0 {
            for width in widths {
                text.push_str(&format!("| {} ", "-".repeat(width.max(3))));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits that count, thousands set apart.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    if value.abs() < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    if value.abs() < 100.0 {
        let text = format!("{value:.1}");
        return text.trim_end_matches(".0").to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_of_value_ceiling_and_limit() {
        let run = |value, ceiling| {
            vec![Measure::at_most("w", "µs", value, ceiling + 150.0).beside(ceiling)]
        };
        let rows = medians(&[run(3.0, 1.0), run(500.0, 2.0), run(4.0, 100.0)]);
        assert_eq!(rows, [Measure::at_most("w", "µs", 4.0, 152.0).beside(2.0)]);
        assert!(rows[0].reached());
        assert_eq!(median(vec![1.0, 3.0]), 2.0);
    }

    #[test]
    fn what_could_not_be_measured_is_not_reached() {
        assert!(!Measure::at_most("w", "s", f64::NAN, 1.0).reached());
        assert!(!Measure::at_least("w", "s", f64::NAN, 1.0).reached());
        assert!(Measure::at_least("w", "s", 1.0, 1.0).reached());
        assert!(Measure::shown("w", "s", 1.0).reached());
    }

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (1.234, "1.23"),
            (12.5, "12.5"),
            (150_000.0, "150,000"),
            (999.6, "1,000"),
            (f64::NAN, "?"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let text = render(&[
            Measure::at_most("a", "s", 2.0, 1.0),
            Measure::at_least("b", "/s", 2.0, 1.0).beside(3.0),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[2].contains("MISSED") && lines[2].contains("≤ 1 s"),
            "{text}"
        );
        assert!(
            lines[3].contains("ok") && lines[3].contains("3 /s"),
            "{text}"
        );
    }
}
