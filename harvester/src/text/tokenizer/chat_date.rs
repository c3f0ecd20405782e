//! [`ChatDate`]: the day that chat templates are told it is. A prompt must not depend on the day it is made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAYS_BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A day of the Gregorian calendar. The default is the one that Llama 3's own templates name if they know none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChatDate {
    year: u32,
    /// From 1.
    month: u32,
    /// From 1.
    day: u32,
}

impl Default for ChatDate {
    fn default() -> Self {
        Self { year: 2024, month: 7, day: 26 }
    }
}

impl ChatDate {
    fn is_leap_year(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    /// Number of the day in its year, from 1.
    fn day_of_year(self) -> u32 {
        let leap_day = u32::from(self.is_leap_year() && self.month > 2);
        DAYS_BEFORE[self.month as usize - 1] + leap_day + self.day
    }

    /// Monday is 0.
    fn weekday(self) -> usize {
        let before = self.year - 1;
        // The first of January of the year 1 was a Monday.
        ((before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() - 1) % 7) as usize
    }

    /// Python's `strftime` at midnight of this day; the error names what this does not know.
    pub(super) fn strftime(self, format: &str) -> Result<String, String> {
        let (month, weekday) = (MONTHS[self.month as usize - 1], WEEKDAYS[self.weekday()]);
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let mut directive = rest.next();
            let is_bare = directive == Some('-');
            if is_bare {
                directive = rest.next();
            }
            let padded = |number: u32, width: usize| {
                if is_bare { number.to_string() } else { format!("{number:0width$}") }
            };
            text += &match directive {
                Some('Y') => self.year.to_string(),
                Some('y') => padded(self.year % 100, 2),
                Some('m') => padded(self.month, 2),
                Some('d') => padded(self.day, 2),
                Some('e') => format!("{:2}", self.day),
                Some('j') => padded(self.day_of_year(), 3),
                Some('B') => month.to_owned(),
                Some('b' | 'h') => month[..3].to_owned(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday[..3].to_owned(),
                Some('F') => self.to_string(),
                Some('H' | 'M' | 'S') => padded(0, 2),
                Some('I') => padded(12, 2),
                Some('T') => "00:00:00".to_owned(),
                Some('p') => "AM".to_owned(),
                Some('%') => "%".to_owned(),
                other => return Err(format!("strftime_now: `%{}` is not known", other.unwrap_or_default())),
            };
        }
        Ok(text)
    }
}

impl fmt::Display for ChatDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for ChatDate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Option<Vec<u32>> = text.split('-').map(|number| number.parse().ok()).collect();
        if let Some(&[year @ 1..=9999, month @ 1..=12, day @ 1..=31]) = numbers.as_deref() {
            let date = Self { year, month, day };
            let next = DAYS_BEFORE.get(month as usize).copied().unwrap_or(365);
            let days = next - DAYS_BEFORE[month as usize - 1] + u32::from(month == 2 && date.is_leap_year());
            if day <= days {
                return Ok(date);
            }
        }
        Err(Error::invalid("`chat_date`", "a day such as 2024-07-26", format!("`{text}`")))
    }
}

impl TryFrom<String> for ChatDate {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ChatDate> for String {
    fn from(date: ChatDate) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Expected values from Python's datetime.
    #[test]
    fn a_day_is_written_as_python_writes_it() {
        let cases = [
            ("2024-07-26", "%d %b %Y", "26 Jul 2024"),
            ("2024-02-29", "%A, %B %-d, %Y (%j)", "Thursday, February 29, 2024 (060)"),
            ("2000-01-01", "%a %y-%m-%d %H:%M:%S %p", "Sat 00-01-01 00:00:00 AM"),
            ("1900-12-31", "%a %j %e%%", "Mon 365 31%"),
            ("2026-11-30", "%F %-m/%-d", "2026-11-30 11/30"),
        ];
        for (day, format, expected) in cases {
            assert_eq!(day.parse::<ChatDate>().unwrap().strftime(format).unwrap(), expected, "{day} {format}");
        }
        assert!(ChatDate::default().strftime("%Q").unwrap_err().contains("`%Q`"));
    }

    #[test]
    fn days_that_are_none_are_refused() {
        for text in ["2023-02-29", "2024-13-01", "2024-04-31", "2024-00-10", "26 Jul 2024", "", "0-1-1"] {
            let message = text.parse::<ChatDate>().unwrap_err().to_string();
            assert!(message.contains("2024-07-26"), "{message}");
        }
    }
}
