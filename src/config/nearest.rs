//! "Did you mean": the valid name that a wrong one most resembles.

/// The valid name nearest to `given`, if any is near enough to be worth naming.
pub(super) fn nearest<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = plain(given);
    valid
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &plain(name)), name))
        .filter(|(edits, name)| *edits <= 1.max(name.len() / 3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// `-` and `_`, upper and lower case are the same mistake.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_or_nothing() {
        let valid = ["listen", "workers", "max_head_bytes", "max_body_bytes"];
        for (given, expected) in [
            ("listne", Some("listen")),
            ("Listen", Some("listen")),
            ("worker", Some("workers")),
            ("max-body-bytes", Some("max_body_bytes")),
            ("max_body_size", Some("max_body_bytes")),
            ("colour", None),
        ] {
            assert_eq!(nearest(given, valid), expected, "{given}");
        }
    }
}
