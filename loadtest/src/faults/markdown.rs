//! Puts generated text into a file that people write, between two markers.

use std::{fs, path::Path};

use crate::Error;

const BEGIN: &str = "<!-- begin: loadtest faults -->";
const END: &str = "<!-- end: loadtest faults -->";

/// Replaces what stands between the markers in `path`.
///
/// # Errors
/// [`Error::Argument`] without the markers; [`Error::Output`] when the file cannot be read or written.
pub(crate) fn update(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Output { path: path.to_owned(), source };
    let page = fs::read_to_string(path).map_err(failed)?;
    let page = replaced(&page, text).ok_or_else(|| {
        Error::Argument(format!("{}: no lines {BEGIN} and {END} to write the table between", path.display()))
    })?;
    fs::write(path, page).map_err(failed)
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
