//! Durations in the configuration: `"5ms"`, `"10s"`, `"1m"`, `"1h"`. A plain number has no unit and is refused.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

const FORM: &str = "a duration with its unit, such as \"5ms\", \"10s\", \"1m\" or \"1h\"";
/// Milliseconds in each unit, the longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Writes a duration in the longest unit that holds it exactly.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) = UNITS
        .into_iter()
        .find(|(_, size)| millis.is_multiple_of(*size) && millis >= *size)
        .unwrap_or(("s", 1_000));
    serializer.collect_str(&format_args!("{}{unit}", millis / size))
}

/// Reads a duration from a string.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(FORM)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).ok_or_else(|| E::custom(format_args!("\"{text}\" is not {FORM}")))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(format_args!("the number {number} has no unit; write {FORM}")))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
            Err(E::custom(format_args!("the number {number} has no unit; write {FORM}")))
        }
    }

    deserializer.deserialize_any(Text)
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(size).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Key {
        #[serde(with = "super")]
        pause: Duration,
    }

    #[test]
    fn reads_each_unit() {
        for (text, millis) in
            [("0s", 0), ("5ms", 5), ("10s", 10_000), ("10 s", 10_000), ("1m", 60_000), ("2h", 7_200_000)]
        {
            let key: Key = toml::from_str(&format!("pause = \"{text}\"")).unwrap();
            assert_eq!(key.pause, Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_would_be_right() {
        for (value, says) in [
            ("5", "the number 5 has no unit; write a duration with its unit, such as \"5ms\""),
            ("\"5\"", "\"5\" is not a duration with its unit"),
            ("\"-1s\"", "\"-1s\" is not a duration"),
            ("\"1.5s\"", "\"1.5s\" is not a duration"),
            ("\"99999999999999999999s\"", "is not a duration"),
            ("\"18446744073709551615h\"", "is not a duration"),
            ("true", "expected a duration with its unit"),
        ] {
            let error = toml::from_str::<Key>(&format!("pause = {value}")).unwrap_err();
            assert!(error.message().contains(says), "{value}: {error}");
        }
    }

    #[test]
    fn writes_the_longest_exact_unit() {
        for (millis, text) in [(0, "0s"), (5, "5ms"), (1500, "1500ms"), (75_000, "75s"), (120_000, "2m")] {
            let printed = toml::to_string(&Key { pause: Duration::from_millis(millis) }).unwrap();
            assert_eq!(printed, format!("pause = \"{text}\"\n"));
        }
    }
}
