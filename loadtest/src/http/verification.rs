//! `--verify`: the far end is read while the load runs, and compared with what was answered.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{
    Error,
    far_end::{FarEnd, Verdict},
    http::{Plan, args::Verify},
    numbers::Numbers,
};

/// A far end being read.
#[derive(Debug)]
pub(crate) struct Verification {
    far_end: FarEnd,
    answered: PathBuf,
    /// Of the file of answered numbers, where the user wants none.
    _folder: TempDir,
}

impl Verification {
    /// Begins to read.
    pub(crate) async fn start(verify: &Verify, plan: &Plan) -> Result<Self, Error> {
        let folder = TempDir::with_prefix("loadtest-verify-").map_err(Error::io("temporary folder"))?;
        let answered = plan.answered.clone().unwrap_or_else(|| folder.path().join("answered"));
        let far_end = FarEnd::start(&verify.url, &verify.destination, plan.first_seq).await?;
        far_end.expect_nothing().await?;
        Ok(Self { far_end, answered, _folder: folder })
    }

    /// Where answered numbers are to be noted.
    pub(crate) fn answered(&self) -> &Path {
        &self.answered
    }

    /// Waits for what is missing and compares.
    pub(crate) async fn finish(self, plan: &Plan) -> Result<Verdict, Error> {
        let quiet = plan.verify.as_ref().map(|verify| verify.quiet).unwrap_or_default();
        let answered = Numbers::read(&self.answered, plan.first_seq)?;
        let arrived = self.far_end.finish(&answered, quiet).await?;
        Ok(Verdict::new(&answered, &arrived))
    }
}
