//! Sizes in the configuration: octets as an integer, or a string such as `"64KiB"`.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

const FORM: &str = "a number of octets, or a size such as \"64KiB\", \"16MiB\" or \"1GiB\"";
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Writes a size in the largest unit that holds it exactly; octets as an integer.
pub(super) fn serialize<S: Serializer>(octets: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    match UNITS.into_iter().find(|(_, size)| *octets >= *size && octets.is_multiple_of(*size)) {
        Some((unit, size)) if size > 1 => serializer.collect_str(&format_args!("{}{unit}", octets / size)),
        _ => serializer.serialize_u64(*octets as u64),
    }
}

/// Reads a size from an integer or a string.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(FORM)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<usize, E> {
            parse(text).ok_or_else(|| E::custom(format_args!("\"{text}\" is not {FORM}")))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<usize, E> {
            usize::try_from(number).map_err(|_| E::custom(format_args!("{number} is not {FORM}")))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<usize, E> {
            usize::try_from(number).map_err(|_| E::custom(format_args!("{number} is not {FORM}")))
        }
    }

    deserializer.deserialize_any(Size)
}

fn parse(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let size = match unit.trim_start() {
        "" => 1,
        unit => UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<usize>().ok()?.checked_mul(size)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct Key {
        #[serde(with = "super")]
        size: usize,
    }

    #[test]
    fn reads_integers_and_strings() {
        for (value, octets) in [
            ("0", 0),
            ("100", 100),
            ("\"100\"", 100),
            ("\"100B\"", 100),
            ("\"64KiB\"", 65_536),
            ("\"64 kib\"", 65_536),
            ("\"16MiB\"", 16 << 20),
            ("\"1GiB\"", 1 << 30),
        ] {
            let key: Key = toml::from_str(&format!("size = {value}")).unwrap();
            assert_eq!(key.size, octets, "{value}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_would_be_right() {
        for (value, says) in [
            ("-1", "-1 is not a number of octets, or a size such as \"64KiB\""),
            ("\"64KB\"", "\"64KB\" is not a number of octets"),
            ("\"lots\"", "\"lots\" is not a number of octets"),
            ("\"99999999999GiB\"", "is not a number of octets"),
            ("1.5", "expected a number of octets"),
        ] {
            let error = toml::from_str::<Key>(&format!("size = {value}")).unwrap_err();
            assert!(error.message().contains(says), "{value}: {error}");
        }
    }

    #[test]
    fn writes_the_largest_exact_unit() {
        for (octets, text) in
            [(0, "0"), (100, "100"), (1536, "1536"), (65_536, "\"64KiB\""), (3 << 30, "\"3GiB\"")]
        {
            assert_eq!(toml::to_string(&Key { size: octets }).unwrap(), format!("size = {text}\n"));
        }
    }
}
