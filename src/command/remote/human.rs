//! Numbers, durations and sizes, as people read them at a glance.

use std::time::Duration;

const KIB: f64 = 1024.0;

/// A time in at most four characters, such as `59s`, `12m` and `36h`.
pub(super) fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..100 => format!("{seconds}s"),
        seconds @ ..6_000 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3600),
        seconds @ ..86_400_000 => format!("{}d", seconds / 86_400),
        seconds => format!("{}y", seconds / 31_557_600),
    }
}

/// Bytes in at most five characters, such as `0`, `999` and `1.2M`.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, KIB)
}

/// A number in at most five characters, such as `12345` and `123K`.
pub(super) fn count(count: u64) -> String {
    if count < 100_000 { count.to_string() } else { scaled(count as f64, 1000.0) }
}

/// So many a second, in at most five characters, such as `0`, `0.2` and `340`.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        zero if zero < 0.05 => "0".into(),
        few if few < 9.95 => format!("{few:.1}"),
        many => scaled(many, 1000.0),
    }
}

/// A time to answer, such as `0.12ms` and `340ms`.
pub(super) fn round_trip(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        short if short < 9.995 => format!("{short:.2}ms"),
        long if long < 10_000.0 => format!("{long:.0}ms"),
        long => format!("{:.0}s", long / 1000.0),
    }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn scaled(number: f64, step: f64) -> String {
    let (mut number, mut unit) = (number, 0);
    const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= step;
        unit += 1;
    }
    match unit {
        0 => format!("{number:.0}"),
        _ if number < 9.95 => format!("{number:.1}{}", UNITS[unit]),
        _ => format!("{number:.0}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let seconds = |n| age(Duration::from_secs(n));
        for (n, text) in [(0, "0s"), (99, "99s"), (100, "1m"), (5_999, "99m"), (6_000, "1h"), (172_800, "2d")]
        {
            assert_eq!(seconds(n), text);
        }
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1.0K"), (1536, "1.5K"), (10 << 20, "10M"), (u64::MAX, "16384P")]
        {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in [(99_999, "99999"), (100_000, "100K"), (1_234_567, "1.2M")] {
            assert_eq!(count(n), text);
        }
        for (n, text) in [(0.0, "0"), (0.04, "0"), (0.25, "0.2"), (9.96, "10"), (1234.0, "1.2K")] {
            assert_eq!(rate(n), text);
        }
        for (n, text) in [(120, "0.12ms"), (9_994, "9.99ms"), (340_000, "340ms"), (90_000_000, "90s")] {
            assert_eq!(round_trip(Duration::from_micros(n)), text);
        }
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"].map(String::from)
        );
    }
}
