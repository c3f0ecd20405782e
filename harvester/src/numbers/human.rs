//! Numbers as people read them, in estimates, progress and results, and as they write them, in settings.

/// `1234567` -> `1,234,567`
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Words as a command that can be pasted into a shell. URLs lose their user and their query: both may hold a secret.
pub fn shell_command(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    words.into_iter().map(|word| shell_quoted(&without_secrets(word.as_ref()))).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it, with its line breaks; of `--flag=value`, only the value is quoted.
fn shell_quoted(word: &str) -> String {
    if let Some((flag, value)) = word.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
        return format!("{flag}={}", shell_quoted(value));
    }
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:,@+%".contains(c);
    if word.contains(char::is_control) {
        let escaped = word.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
        return format!("$'{escaped}'");
    }
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A word without the user and the query of a URL in it.
fn without_secrets(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_string() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let path = path.split('?').next().unwrap_or(path);
    format!("{scheme}://{}{path}", host.split('?').next().unwrap_or(host))
}

/// `1 part`, `2 parts`, `1,200 parts`
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `512 bytes`, `1.5 KiB`, `93.8 MiB`
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let exponent = (n.max(1).ilog2() / 10) as usize;
    match exponent.min(UNITS.len()) {
        0 => counted(n, "byte"),
        unit => format!("{:.1} {}", n as f64 / 1024f64.powi(unit as i32), UNITS[unit - 1]),
    }
}

/// `1 s`, `89 s`, `2 min`, `3 h`, `2 days`; never less than a second.
pub fn seconds(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    let whole = |unit: f64| grouped((seconds / unit).round().max(1.0) as u64);
    match seconds {
        s if s >= 2.0 * DAY => format!("{} days", whole(DAY)),
        s if s >= 1.5 * HOUR => format!("{} h", whole(HOUR)),
        s if s >= 1.5 * MINUTE => format!("{} min", whole(MINUTE)),
        _ => format!("{} s", whole(1.0)),
    }
}

/// `0.3/s`, `870/s`: a whole number from 10 on.
pub(crate) fn per_second(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{}/s", grouped(rate.round() as u64)) }
}

/// Floating-point operations: `96 kFLOP`, `110 MFLOP`.
pub(crate) fn flop(n: u64) -> String {
    const MEGA: u64 = 1_000_000;
    if n >= 10 * MEGA { format!("{} MFLOP", grouped(n / MEGA)) } else { format!("{} kFLOP", grouped(n.div_ceil(1000))) }
}

/// A whole number: `4096`, `1_000_000`, `1e6`, `3k`, `1.5M`, `2G`; `None` if it is none, or above 2^64.
pub fn whole(text: &str) -> Option<u64> {
    let (digits, power) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (digits, "k" | "K") => (digits, 3),
        (digits, "m" | "M") => (digits, 6),
        (digits, "g" | "G") => (digits, 9),
        _ => match text.split_once(['e', 'E']) {
            Some((digits, power)) => (digits, power.parse().ok()?),
            None => (text, 0),
        },
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_group = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    if ![whole, decimals].iter().all(|digits| digits.split('_').all(is_group)) {
        return None;
    }
    let [whole, decimals] = [whole, decimals].map(|digits| digits.replace('_', ""));
    let number: u128 = [&whole[..], &decimals].concat().parse().ok()?;
    let power = i32::checked_sub(power, i32::try_from(decimals.len()).ok()?)?;
    let scale = 10u128.checked_pow(power.unsigned_abs())?;
    let number = match power {
        0.. => number.checked_mul(scale)?,
        _ => Some(number / scale).filter(|_| number.is_multiple_of(scale))?,
    };
    number.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_and_tells_no_secret() {
        let words = ["refract", "steer", "--prompt", "it's\n\tso", "--clamp", "3=0", "my folder/a$b", "", "it's"];
        let expected = r"refract steer --prompt $'it\'s\n\tso' --clamp 3=0 'my folder/a$b' '' 'it'\''s'";
        assert_eq!(shell_command(words), expected);
        let words = ["--out=s3://key:secret@bucket/a b?sig=1", "https://host?token=1", "hf://datasets/o/n@main/x"];
        assert_eq!(shell_command(words), "--out='s3://bucket/a b' https://host hf://datasets/o/n@main/x");
    }

    #[test]
    fn a_whole_number_may_have_decimals_a_power_of_ten_and_a_unit() {
        for (text, expected) in [
            ("4096", 4096),
            ("1_000_000", 1_000_000),
            ("3k", 3000),
            ("1.5M", 1_500_000),
            ("0.25k", 250),
            ("2G", 2_000_000_000),
            ("1e4", 10_000),
            ("2.5E+3", 2500),
            ("100e-2", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(whole(text), Some(expected), "{text}");
        }
        let refused = "k .5k 1.5 1.2345k -3 3kk 1e-1 1e 1ek 18446744073709551616 99999999999999G 1__0 _1 1_ 1e99 é";
        for text in refused.split(' ').chain([""]) {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn digits_are_in_groups_of_three_and_nouns_have_a_plural() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2, 1200].map(|n| counted(n, "part")), ["0 parts", "1 part", "2 parts", "1,200 parts"]);
    }

    #[test]
    fn sizes_and_times_have_the_unit_that_fits() {
        let sizes = [0, 1, 1023, 1536, 98_362_432, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 bytes", "1 byte", "1,023 bytes", "1.5 KiB", "93.8 MiB", "16777216.0 TiB"]);
        let times = [0.0, 0.4, 89.0, 95.0, 3600.0, 10_000.0, 90_000.0, 200_000.0].map(seconds);
        assert_eq!(times, ["1 s", "1 s", "89 s", "2 min", "60 min", "3 h", "25 h", "2 days"]);
    }

    #[test]
    fn a_small_model_computes_something_too() {
        let said = [0, 1, 96_000, 9_999_999, 110_400_000, 1_234_000_000].map(flop);
        assert_eq!(said, ["0 kFLOP", "1 kFLOP", "96 kFLOP", "10,000 kFLOP", "110 MFLOP", "1,234 MFLOP"]);
    }

    #[test]
    fn rates_are_whole_where_they_are_more_than_a_few() {
        assert_eq!([0.26, 9.94, 12345.6].map(per_second), ["0.3/s", "9.9/s", "12,346/s"]);
    }
}
