//! Durations as Go spells them: `1h30m`, `1.5s`, `300ms`.

use std::fmt;

/// A signed span in nanoseconds, as the original keeps and prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct GoDuration(pub i64);

/// Why a duration could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not of the form `[+-]<number><unit>…`.
    #[error("time: invalid duration {0}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0}")]
    MissingUnit(String),
    /// A unit that does not exist; there are no days.
    #[error("time: unknown unit {unit} in duration {text}")]
    UnknownUnit {
        /// What stood where a unit is due.
        unit: String,
        /// The whole text.
        text: String,
    },
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5
    ("μs", 1_000), // U+03BC
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// Reads `[+-]` and numbers with units `ns us µs ms s m h`, or a bare `0`.
    ///
    /// # Errors
    /// [`DurationError`] names what is wrong; numbers that do not fit 63 bits of nanoseconds are invalid.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let whole_len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (whole, after) = rest.split_at(whole_len);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(tail) => {
                    let len = tail.bytes().take_while(u8::is_ascii_digit).count();
                    tail.split_at(len)
                }
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_len = after
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            if unit.is_empty() {
                return Err(DurationError::MissingUnit(text.to_owned()));
            }
            let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(DurationError::UnknownUnit {
                    unit: unit.to_owned(),
                    text: text.to_owned(),
                });
            };
            let mut value = if whole.is_empty() {
                0
            } else {
                whole.parse::<i64>().map_err(|_| invalid())?
            };
            value = value.checked_mul(*scale).ok_or_else(invalid)?;
            // Digits past the nanosecond are dropped, as the original does.
            let mut digit_scale = *scale;
            for digit in fraction.bytes() {
                digit_scale /= 10;
                value = value
                    .checked_add(i64::from(digit - b'0') * digit_scale)
                    .ok_or_else(invalid)?;
            }
            total = total.checked_add(value).ok_or_else(invalid)?;
            rest = after;
        }
        Ok(Self(if negative { -total } else { total }))
    }

    /// As a span that runs forward; negative ones become zero.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<std::time::Duration> for GoDuration {
    fn from(span: std::time::Duration) -> Self {
        Self(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    /// `1h2m0s`, `1.5s`, `300ms`, `0s`, as the original prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |f: &mut fmt::Formatter<'_>, value: u64, scale: u64| {
            write!(f, "{}", value / scale)?;
            let fraction = value % scale;
            if fraction == 0 {
                return Ok(());
            }
            let width = scale.ilog10() as usize;
            let digits = format!("{fraction:0width$}");
            write!(f, ".{}", digits.trim_end_matches('0'))
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => {
                decimal(f, nanos, 1_000)?;
                f.write_str("µs")
            }
            1_000_000..1_000_000_000 => {
                decimal(f, nanos, 1_000_000)?;
                f.write_str("ms")
            }
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                decimal(f, nanos % 60_000_000_000, 1_000_000_000)?;
                f.write_str("s")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("5ns", 5, "5ns"),
            ("1.5us", 1_500, "1.5µs"),
            ("300ms", 300_000_000, "300ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("1h2m", 3_720_000_000_000, "1h2m0s"),
            ("72h", 259_200_000_000_000, "72h0m0s"),
            ("-10s", -10_000_000_000, "-10s"),
            ("+.5m", 30_000_000_000, "30s"),
            ("1h15m30.918s", 4_530_918_000_000, "1h15m30.918s"),
        ] {
            let parsed = GoDuration::parse(text).unwrap();
            assert_eq!(parsed.0, nanos, "{text}");
            assert_eq!(parsed.to_string(), printed, "{text}");
            assert_eq!(GoDuration::parse(printed).unwrap(), parsed);
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            "-",
            ".",
            "s",
            "3",
            "1d",
            "3.s5",
            "1h 2m",
            "99999999999h",
            "1..5s",
        ] {
            assert!(GoDuration::parse(text).is_err(), "{text}");
        }
    }
}
