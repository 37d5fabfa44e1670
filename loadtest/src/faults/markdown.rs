//! Puts generated text into a file that people write, between two markers.

use std::{fs, path::Path};

use crate::Error;

const BEGIN: &str = "<!-- begin: loadtest faults -->";
const END: &str = "<!-- end: loadtest faults -->";

/// Whether the table can be written into `path`, so that nobody runs for half an hour to hear that it cannot.
///
/// # Errors
/// As [`update`].
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    with(path, "").map(drop)
}

/// Replaces what stands between the markers in `path`.
///
/// # Errors
/// [`Error::Argument`] when there is no such file, or no markers are in it; [`Error::Output`] when it cannot be written.
pub(crate) fn update(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, with(path, text)?).map_err(|source| Error::Output { path: path.to_owned(), source })
}

fn with(path: &Path, text: &str) -> Result<String, Error> {
    let refused = |reason: String| Error::Argument(format!("--markdown {}: {reason}", path.display()));
    let page = fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    replaced(&page, text)
        .ok_or_else(|| refused(format!("no lines {BEGIN} and {END} to write the table between")))
}

fn replaced(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("above\n{BEGIN}\nnew\n{END}\nbelow\n"));
        assert_eq!(replaced(&new, "new").as_ref(), Some(&new));
        for page in ["", BEGIN, END, &format!("{END}{BEGIN}")] {
            assert_eq!(replaced(page, "new"), None);
        }
    }
}
