//! From when to when a certificate is valid.
//!
//! The verification of peers' certificates looks at this itself; here it is read for a warning about our own, which nobody verifies before a peer refuses it.

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The validity of a certificate in DER; `None` if it isn't written as certificates are.
pub(super) fn read(certificate: &[u8]) -> Option<Validity> {
    let (mut certificate, _) = take(certificate, SEQUENCE)?;
    let mut body = step(&mut certificate, SEQUENCE)?;
    // The version is left out of the oldest certificates.
    if body.first() == Some(&VERSION) {
        step(&mut body, VERSION)?;
    }
    let _serial = step(&mut body, INTEGER)?;
    let _algorithm = step(&mut body, SEQUENCE)?;
    let _issuer = step(&mut body, SEQUENCE)?;
    let mut validity = step(&mut body, SEQUENCE)?;
    Some(Validity {
        not_before: time(&mut validity)?,
        not_after: time(&mut validity)?,
    })
}

fn step<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (content, rest) = take(bytes, tag)?;
    *bytes = rest;
    Some(content)
}

/// The content of the value at the beginning, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // Four bytes of length are more than any certificate has.
        if digits.len() > 4 {
            return None;
        }
        let length = digits
            .iter()
            .fold(0, |length, &digit| length << 8 | usize::from(digit));
        (length, rest)
    };
    rest.split_at_checked(length)
}

fn time(bytes: &mut &[u8]) -> Option<u64> {
    let (year, rest) = match *bytes.first()? {
        UTC_TIME => {
            let (year, rest) = step(bytes, UTC_TIME)?.split_at_checked(2)?;
            let year = number(year)?;
            // The two digits mean the years from 1950 to 2049.
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = step(bytes, GENERALIZED_TIME)?.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let (digits, zone) = rest.split_at_checked(10)?;
    if zone != b"Z" {
        return None;
    }
    let part = |place: usize| number(&digits[2 * place..2 * place + 2]);
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // What was valid before 1970 was not after it: the beginning of time will do.
    let Some(days) = days_since_1970(year, month, day) else {
        return Some(0);
    };
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, &digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// Counts years from March, so that the leap day is the last of a year.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}
