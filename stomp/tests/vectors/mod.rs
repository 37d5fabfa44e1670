//! What the tests of all vector files share: how octets, frames and versions are written down, and how files are read.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use stompwire::proto::{Command, Frame, Headers, Limits};

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Client,
    Server,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum FrameText {
    WithBody(String, Vec<(String, String)>, Octets),
    WithoutBody(String, Vec<(String, String)>),
}

/// Octets as the characters U+0000 to U+00FF.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Octets(pub(crate) Vec<u8>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsText {
    max_line: Option<usize>,
    max_headers: Option<usize>,
    max_head: Option<usize>,
    max_body: Option<usize>,
    max_long_body: Option<u64>,
    max_eols: Option<usize>,
}

/// All vectors of a file.
pub(crate) fn load<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.json"));
    let text = std::fs::read_to_string(&path).expect("the file is part of the repository");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every id is unique and starts with its item. Returns the items.
pub(crate) fn items_of(ids: &[(String, u8)]) -> BTreeSet<u8> {
    let unique: BTreeSet<&str> = ids.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(unique.len(), ids.len(), "an id occurs twice");
    for (id, item) in ids {
        assert!(id.starts_with(&format!("{item}-")), "{id}: the id starts with the item");
    }
    ids.iter().map(|(_, item)| *item).collect()
}

/// The name of an error's variant.
pub(crate) fn variant_name(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

impl OneOrMore {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => &more[..],
        }
        .iter()
        .map(String::as_str)
    }
}

impl FrameText {
    pub(crate) fn frame(&self) -> Frame {
        let (word, headers, body) = match self {
            Self::WithBody(word, headers, body) => (word, headers, &body.0[..]),
            Self::WithoutBody(word, headers) => (word, headers, &[][..]),
        };
        let command = Command::parse(word.as_bytes()).expect("a command");
        let headers: Headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Frame::from_parts(command, headers, body.to_vec().into())
    }
}

impl TryFrom<String> for Octets {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map(Self)
    }
}

impl LimitsText {
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_line: self.max_line.unwrap_or(default.max_line),
            max_headers: self.max_headers.unwrap_or(default.max_headers),
            max_head: self.max_head.unwrap_or(default.max_head),
            max_body: self.max_body.unwrap_or(default.max_body),
            max_long_body: self.max_long_body.unwrap_or(default.max_long_body),
            max_eols: self.max_eols.unwrap_or(default.max_eols),
        }
    }
}
